"""A PredictRequest as it came over the wire, its tensors looked at in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from inference import wire
from inference.serving_messages import serving_message


@dataclass(frozen=True)
class PredictRequest:
    """What a client asks for.

    Attributes:
        model_spec: message ModelSpec, or None where the client sent none.
        inputs: tensor by name, as `wire.WireTensor`, as message TensorProto or as array.
        output_filter: outputs that are asked for; none: all.
    """

    model_spec: Any | None
    inputs: dict[str, Any]
    output_filter: tuple[str, ...]


def read_predict_request(raw: bytes) -> PredictRequest:
    """Read a PredictRequest, large tensors in place where they come in the usual form.

    Raises:
        DecodeError: the bytes are no PredictRequest.
    """
    try:
        request = _read_in_place(memoryview(raw))
    except (wire.MalformedMessage, DecodeError, UnicodeDecodeError):
        request = None
    return request or request_of_message(serving_message("PredictRequest").FromString(raw))


def request_of_message(message: Any) -> PredictRequest:
    """Give a message PredictRequest in this module's form."""
    model_spec = message.model_spec if message.HasField("model_spec") else None
    return PredictRequest(model_spec, dict(message.inputs), tuple(message.output_filter))


def _read_in_place(raw: memoryview) -> PredictRequest | None:
    """Read a request with one ModelSpec and tensors that `wire.read_tensor` takes; None for any other."""
    model_spec: Any | None = None
    inputs: dict[str, Any] = {}
    output_filter: list[str] = []
    for number, wire_type, value in wire.read_fields(raw):
        if wire_type != wire.BYTES or not isinstance(value, memoryview) or number > 3:
            return None
        if number == 1 and model_spec is None:
            model_spec = serving_message("ModelSpec").FromString(bytes(value))
        elif number == 2:
            entry = wire.read_map_entry(value)
            tensor = wire.read_tensor(entry[1]) if entry else None
            if entry is None or tensor is None or entry[0] in inputs:
                return None
            inputs[entry[0]] = tensor
        elif number == 3:
            output_filter.append(bytes(value).decode())
        else:
            return None
    return PredictRequest(model_spec, inputs, tuple(output_filter))
