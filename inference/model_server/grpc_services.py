"""PredictionService and ModelService over gRPC, on raw bytes so that large tensors are not copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from inference.model_server.predict_request import read_predict_request
from inference.model_server.serving_api import GRPC, ServingApi
from inference.model_server.statuses import StatusError
from inference.serving_messages import MODEL_SERVICE, PREDICTION_SERVICE, serving_message

log = structlog.get_logger()

Answer = Callable[[bytes, int], bytes]  # serialised request, what is left of its deadline (ms) -> serialised reply


def serving_methods(api: ServingApi, *, as_content: bool = False) -> dict[str, Answer]:
    """Give the answer to each method by its gRPC path.

    Args:
        api: answers the requests.
        as_content: outputs of Predict go as `tensor_content` instead of the `*_val` fields.
    """

    def predict(raw: bytes, timeout_ms: int) -> bytes:
        return api.predict(read_predict_request(raw), timeout_ms, GRPC).to_bytes(as_content=as_content)

    prediction, model = f"/{PREDICTION_SERVICE}", f"/{MODEL_SERVICE}"
    return {
        f"{prediction}/Predict": predict,
        f"{prediction}/Classify": _of("ClassificationRequest", lambda request, ms: api.classify(request, ms, GRPC)),
        f"{prediction}/Regress": _of("RegressionRequest", lambda request, ms: api.regress(request, ms, GRPC)),
        f"{prediction}/MultiInference": _of("MultiInferenceRequest", api.multi_inference),
        f"{prediction}/GetModelMetadata": _of(
            "GetModelMetadataRequest", lambda request, _: api.model_metadata(request)
        ),
        f"{model}/GetModelStatus": _of("GetModelStatusRequest", lambda request, _: api.model_status(request)),
        f"{model}/HandleReloadConfigRequest": _of("ReloadConfigRequest", api.reload),
    }


@dataclass(frozen=True)
class RawMethods(grpc.GenericRpcHandler):
    """Hands each call's bytes to its method; leaves others to the next handler."""

    methods: Mapping[str, Answer]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Give the handler of one call."""
        answer = self.methods.get(handler_call_details.method)
        return None if answer is None else grpc.unary_unary_rpc_method_handler(_answering(answer))


class NoSuchMethod(grpc.GenericRpcHandler):
    """Answers whatever no handler before it took, with no text, as gRPC's C++ server does."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Give the handler of any call."""
        return grpc.unary_unary_rpc_method_handler(_unimplemented)


def _unimplemented(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    return b""


def _of(name: str, answer: Callable[[Any, int], Any]) -> Answer:
    """Give the answer to a method that takes and gives messages."""

    def answer_bytes(raw: bytes, timeout_ms: int) -> bytes:
        reply: bytes = answer(serving_message(name).FromString(raw), timeout_ms).SerializeToString()
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
