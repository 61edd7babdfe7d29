"""PredictionService and ModelService over gRPC, on raw bytes so that large tensors are not copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from inference.model_server.model_metadata import model_metadata, model_status
from inference.model_server.predict import predict
from inference.model_server.predict_request import read_predict_request
from inference.model_server.servable_manager import ServableManager
from inference.model_server.statuses import StatusError
from inference.serving_messages import MODEL_SERVICE, PREDICTION_SERVICE, serving_message

log = structlog.get_logger()

Answer = Callable[[bytes, int], bytes]  # serialised request, what is left of its deadline (ms) -> serialised reply


def serving_methods(manager: ServableManager) -> dict[str, Answer]:
    """Give the answer to each method by its gRPC path."""
    prediction, model = f"/{PREDICTION_SERVICE}", f"/{MODEL_SERVICE}"
    return {
        f"{prediction}/Predict": lambda raw, ms: predict(read_predict_request(raw), manager, timeout_ms=ms),
        f"{prediction}/GetModelMetadata": _of_message("GetModelMetadataRequest", lambda r: model_metadata(r, manager)),
        f"{model}/GetModelStatus": _of_message("GetModelStatusRequest", lambda r: model_status(r, manager)),
    }


@dataclass(frozen=True)
class RawMethods(grpc.GenericRpcHandler):
    """Hands each call's bytes to its method; others are UNIMPLEMENTED."""

    methods: dict[str, Answer]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Give the handler of one call."""
        answer = self.methods.get(handler_call_details.method)
        if answer is None:
            return None
        return grpc.unary_unary_rpc_method_handler(_answering(answer))


def _of_message(name: str, answer: Callable[[Any], Any]) -> Answer:
    def answer_bytes(raw: bytes, _: int) -> bytes:
        reply: bytes = answer(serving_message(name).FromString(raw)).SerializeToString()
        return reply

    return answer_bytes


def _answering(answer: Answer) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer_call(raw: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(raw, _timeout_ms(context))
        except StatusError as error:
            code, details = error.code, error.details
        except DecodeError:
            code, details = grpc.StatusCode.INTERNAL, ""  # as gRPC's own parser answers
        except Exception as error:  # noqa: BLE001  one request must not take the thread's answer away
            log.error("request_failed", error_type=type(error).__name__)
            code, details = grpc.StatusCode.INTERNAL, f"The server failed ({type(error).__name__})"
        context.set_code(code)
        context.set_details(details)
        return b""

    return answer_call


def _timeout_ms(context: grpc.ServicerContext) -> int:
    """Give what is left of the client's deadline; 0 where it set none."""
    left_s = context.time_remaining()
    if left_s is None or not math.isfinite(left_s) or left_s > 1e9:
        return 0
    return max(1, int(left_s * 1000))
