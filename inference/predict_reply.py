"""What an endpoint's reply says: probability maps, read in place where they come in the usual form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from inference import wire
from inference.serving_messages import serving_message
from triage.errors import ServingError

BITS_OF_1 = np.float32(1).view(np.uint32)
PROBABILITY_SLACK = 1e-6  # float32 arithmetic may step over 0 and 1 by this much


def read_message(name: str, raw: bytes) -> Any:
    """Read a reply as a message of `tensorflow.serving`.

    Raises:
        ServingError: it is none.
    """
    try:
        return serving_message(name).FromString(raw)
    except DecodeError as error:
        raise ServingError(f"the endpoint's reply is no {name}; expected one of TF Serving") from error


def probability_maps(raw: bytes, output_name: str, expected: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Read the maps of a PredictResponse.

    Args:
        raw: the serialised reply.
        output_name: name of the output.
        expected: slabs, rows and columns.

    Returns:
        (N, Y, X) float32, 0 to 1.

    Raises:
        ServingError: there is no such output, or it is not finite numbers from 0 to 1 of that shape.
    """
    return _checked_maps(_float_output(raw, output_name), expected)


def _float_output(raw: bytes, name: str) -> npt.NDArray[np.float32]:
    tensor = _wire_output(memoryview(raw), name)
    if tensor is not None and tensor.dtype == wire.DT_FLOAT:
        values = np.frombuffer(tensor.content or tensor.float_val, "<f4")
        if values.size == np.prod(tensor.shape, dtype=np.int64):
            return values.reshape(tensor.shape).astype(np.float32, copy=False)
    return _message_output(raw, name)


def _wire_output(raw: memoryview, name: str) -> wire.WireTensor | None:
    try:
        for number, wire_type, value in wire.read_fields(raw):
            if (number, wire_type) == (1, wire.BYTES) and isinstance(value, memoryview):
                entry = wire.read_map_entry(value)
                if entry is not None and entry[0] == name:
                    return wire.read_tensor(entry[1])
    except (wire.MalformedMessage, ValueError):
        return None
    return None


def _message_output(raw: bytes, name: str) -> npt.NDArray[np.float32]:
    """Read one float32 output by the messages: slower, but any valid form."""
    reply = read_message("PredictResponse", raw)
    if name not in reply.outputs:
        raise ServingError(f"the reply has outputs {sorted(reply.outputs)}; expected {name!r}")
    tensor = reply.outputs[name]
    shape = tuple(axis.size for axis in tensor.tensor_shape.dim)
    if tensor.dtype != wire.DT_FLOAT:
        raise ServingError(f"output {name!r} has type number {tensor.dtype}; expected {wire.DT_FLOAT} (float)")
    content = (
        np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
    )
    count = int(np.prod(shape, dtype=np.int64))
    if content.size == 1 and count > 1:
        content = np.repeat(content, count)  # a constant tensor may be sent as one value (tensor.proto)
    if content.size != count:
        raise ServingError(f"output {name!r} has {content.size} values for shape {shape}")
    return content.reshape(shape).astype(np.float32, copy=False)


def _within_0_and_1(maps: npt.NDArray[np.float32]) -> bool:
    """Tell in one pass whether all are from 0 to 1: the bits of such numbers, as integers, have their order.

    The sign is the highest bit, and NaN and infinity have the highest exponent, so none of them comes below 1.
    """
    return bool(np.ascontiguousarray(maps).view(np.uint32).max() <= BITS_OF_1)


def _checked_maps(maps: npt.NDArray[np.float32], expected: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if maps.shape != expected:
        raise ServingError(f"the endpoint gave maps of shape {maps.shape}; expected {expected}")
    if maps.size == 0 or _within_0_and_1(maps):
        return maps
    lowest, highest = float(maps.min()), float(maps.max())  # NaN comes through both
    if not (lowest >= -PROBABILITY_SLACK and highest <= 1 + PROBABILITY_SLACK):
        raise ServingError(f"the endpoint gave probabilities from {lowest} to {highest}; expected 0 to 1")
    return maps
