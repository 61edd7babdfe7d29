"""Answers Predict: the checks of TF Serving in their order, one run of the graph, the reply in its form.

Reference:
    tensorflow_serving/servables/tensorflow/predict_impl.cc, predict_util.cc; tensorflow/cc/saved_model/util.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inference import wire
from inference.model_server.metrics import Metrics
from inference.model_server.predict_request import PredictRequest
from inference.model_server.servable import Servable
from inference.model_server.statuses import failed_precondition, invalid_argument
from inference.model_server.tensors import Array, TensorParsingError, array_of_message, array_of_wire, tensor_parts
from inference.serving_messages import serving_message

DEFAULT_SIGNATURE = "serving_default"


class Servables(Protocol):
    """Hands out servables; the manager does."""

    def servable(
        self, name: str, version: int | None, label: str | None = None, /
    ) -> AbstractContextManager[tuple[Servable, int]]:
        """Hold one version of a model for a request; see `ServableManager.servable`."""


@dataclass(frozen=True)
class PredictReply:
    """The outputs of one Predict, and the ModelSpec that goes with them."""

    model_spec: Any
    outputs: dict[str, Array]

    def to_bytes(self, *, as_content: bool = False) -> bytes:
        """Give the serialised PredictResponse, values in `*_val` fields or as `tensor_content`."""
        parts = {name: tensor_parts(array, as_content=as_content) for name, array in self.outputs.items()}
        return wire.predict_response_bytes(self.model_spec.SerializeToString(), parts)


def predict(request: PredictRequest, manager: Servables, metrics: Metrics, *, timeout_ms: int = 0) -> PredictReply:
    """Run one signature of one version.

    Args:
        request: what the client asks for.
        manager: holds the servables.
        metrics: takes the time of the run.
        timeout_ms: what is left of the client's deadline; 0: no deadline.

    Raises:
        StatusError: as TF Serving answers.
    """
    with servable_of(request.model_spec, manager) as (servable, version):
        assert request.model_spec is not None  # noqa: S101  servable_of has refused it
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        run = prepared_run(servable, signature_name, request)
        with metrics.runtime(request.model_spec.name, "Predict"):
            arrays = servable.run(run.feeds, run.fetches, timeout_ms)
        spec = reply_spec(request.model_spec.name, version, signature_name)
        return PredictReply(spec, dict(zip(run.names, arrays, strict=True)))


def servable_of(model_spec: Any | None, manager: Servables) -> AbstractContextManager[tuple[Servable, int]]:
    """Hold the servable that a ModelSpec asks for (server_core.cc, ServableRequestFromModelSpec).

    Raises:
        StatusError: no spec, no name, or nothing of this label, version or name is in memory.
    """
    if model_spec is None or not model_spec.ByteSize():
        raise invalid_argument("Missing ModelSpec")
    if not model_spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    version = model_spec.version.value if model_spec.HasField("version") else None
    label = model_spec.version_label if model_spec.HasField("version_label") else None
    return manager.servable(model_spec.name, version, label)


def reply_spec(name: str, version: int, signature_name: str = "") -> Any:
    """Give the ModelSpec of a reply."""
    spec = serving_message("ModelSpec")(name=name, signature_name=signature_name)
    spec.version.value = version
    return spec


@dataclass(frozen=True)
class PreparedRun:
    """What goes into a session and comes out: arrays by tensor name, tensors to fetch, and the outputs' names."""

    feeds: dict[str, Array]
    fetches: list[str]
    names: list[str]


def prepared_run(servable: Servable, signature_name: str, request: PredictRequest) -> PreparedRun:
    """Check a request against a signature.

    Raises:
        StatusError: as TF Serving answers.
    """
    signature = servable.signature(signature_name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{signature_name}" not found.')
    _check_input_count(signature, request.inputs)
    feeds = _feeds(signature, request.inputs)
    names = _output_names(signature, request.output_filter)
    return PreparedRun(feeds, [signature.outputs[name].name for name in names], names)


def _check_input_count(signature: Any, inputs: Mapping[str, Any]) -> None:
    sent, wanted = set(inputs), set(signature.inputs)
    if len(sent) == len(wanted) or (len(sent) < len(wanted) and signature.defaults):
        return
    raise invalid_argument(
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({_set(sent)}) != len({_set(wanted)}). "
        f"Sent extra: {_set(sent - wanted)}. Missing but required: {_set(wanted - sent)}."
    )


def _feeds(signature: Any, inputs: Mapping[str, Any]) -> dict[str, Array]:
    feeds = {}
    for name in sorted(signature.inputs):
        feed_name = signature.inputs[name].name
        if name in inputs:
            feeds[feed_name] = _array(name, inputs[name])
        elif name in signature.defaults:
            feeds[feed_name] = _array(name, signature.defaults[name])
        else:
            raise invalid_argument(
                f"Signature input alias: {name}(feed name: {feed_name}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {_set(inputs)}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )
    return feeds


def _array(name: str, tensor: Any) -> Array:
    if isinstance(tensor, np.ndarray):
        return tensor
    try:
        return array_of_wire(tensor) if isinstance(tensor, wire.WireTensor) else array_of_message(tensor)
    except (TensorParsingError, MemoryError) as error:
        raise invalid_argument(f"tensor parsing error: {name}") from error


def _output_names(signature: Any, output_filter: Iterable[str]) -> list[str]:
    names: list[str] = []
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{_set(signature.outputs)}."
            )
        if name in names:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
        names.append(name)
    return names or sorted(signature.outputs)


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
