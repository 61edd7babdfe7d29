"""Protocol buffers' wire form of Predict, for tensors of megabytes.

The Python messages copy a tensor several times and write some types value by value (5.8 s for a head as uint16). Here
its bytes are joined once on the way out and looked at in place on the way in. Whatever is unusual on the way in gives
None, and the caller then takes the ordinary messages.

Reference:
    https://protobuf.dev/programming-guides/encoding; tensorflow/core/framework/tensor.proto;
    tensorflow_serving/apis/predict.proto (PredictRequest: 1 model_spec, 2 inputs, 3 output_filter; PredictResponse:
    1 outputs, 2 model_spec).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
DTYPE, TENSOR_SHAPE, TENSOR_CONTENT, FLOAT_VAL = 1, 2, 4, 5  # fields of TensorProto
DT_FLOAT, DT_INT16 = 1, 5

Part = bytes | memoryview


class MalformedMessage(ValueError):
    """Bytes that are no protocol buffers message."""


@dataclass(frozen=True)
class WireTensor:
    """A TensorProto looked at in place.

    Attributes:
        dtype: number of `tensorflow.DataType`.
        shape: sizes of the axes.
        content: `tensor_content`, the elements in row-major order, little-endian.
        float_val: packed `float_val`, little-endian float32.
    """

    dtype: int
    shape: tuple[int, ...]
    content: memoryview
    float_val: memoryview


def varint(value: int) -> bytes:
    """Write an unsigned integer, seven bits to the byte, lowest first; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def field_parts(number: int, parts: Iterable[Part]) -> list[Part]:
    """Write a length-delimited field whose content is the joined `parts`."""
    content = list(parts)
    length = sum(len(part) for part in content)
    return [varint(number << 3 | BYTES) + varint(length), *content]


def shape_bytes(shape: Iterable[int]) -> bytes:
    """Write a TensorShapeProto: field 2, one message of a varint field 1, for each axis."""
    axes = (varint(1 << 3 | VARINT) + varint(size) for size in shape)
    return b"".join(part for axis in axes for part in field_parts(2, [axis]))


def tensor_parts(dtype: int, shape: Iterable[int], values: npt.NDArray[np.generic], *, values_field: int) -> list[Part]:
    """Write a TensorProto whose values are the bytes of an array.

    Args:
        dtype: number of `tensorflow.DataType`.
        shape: sizes of the axes.
        values: elements in row-major order; its bytes are not copied here.
        values_field: `TENSOR_CONTENT`, or `FLOAT_VAL` for float32, whose packed form has the same bytes.
    """
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    header = varint(DTYPE << 3 | VARINT) + varint(dtype)
    return [
        header,
        *field_parts(TENSOR_SHAPE, [shape_bytes(shape)]),
        *(field_parts(values_field, [flat]) if flat else []),
    ]


def map_entry_parts(field: int, key: str, value: Iterable[Part]) -> list[Part]:
    """Write one entry of a map from string to message."""
    return field_parts(field, [*field_parts(1, [key.encode()]), *field_parts(2, value)])


def predict_request_bytes(
    model_spec: bytes, inputs: Mapping[str, list[Part]], output_filter: Iterable[str] = ()
) -> bytes:
    """Write a PredictRequest; `inputs` are tensors in parts, `model_spec` is a serialised ModelSpec."""
    parts = field_parts(1, [model_spec])
    for name, tensor in inputs.items():
        parts += map_entry_parts(2, name, tensor)
    for name in output_filter:
        parts += field_parts(3, [name.encode()])
    return b"".join(parts)


def predict_response_bytes(model_spec: bytes, outputs: Mapping[str, list[Part]]) -> bytes:
    """Write a PredictResponse; `outputs` are tensors in parts, `model_spec` is a serialised ModelSpec."""
    parts: list[Part] = []
    for name, tensor in outputs.items():
        parts += map_entry_parts(1, name, tensor)
    return b"".join([*parts, *field_parts(2, [model_spec])])


def read_varint(buffer: memoryview, at: int) -> tuple[int, int]:
    """Read an unsigned integer and give it with the place after it."""
    value = shift = 0
    while shift < 70:  # ten bytes at most
        if at >= len(buffer):
            raise MalformedMessage("a varint is cut short")
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise MalformedMessage("a varint has more than ten bytes")


def read_fields(buffer: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Give number, wire type and value of each field; length-delimited ones as a view of the buffer.

    Raises:
        MalformedMessage: the bytes end in mid-field, or a wire type is none of proto3's.
    """
    at = 0
    while at < len(buffer):
        tag, at = read_varint(buffer, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise MalformedMessage("a field has number 0")
        if wire_type == VARINT:
            value, at = read_varint(buffer, at)
            yield number, wire_type, value
            continue
        length, at = _length(buffer, at, wire_type)
        if at + length > len(buffer):
            raise MalformedMessage("a field is cut short")
        yield number, wire_type, buffer[at : at + length]
        at += length


def _length(buffer: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    if wire_type == BYTES:
        return read_varint(buffer, at)
    if wire_type in (FIXED32, FIXED64):
        return (4 if wire_type == FIXED32 else 8), at
    raise MalformedMessage(f"wire type {wire_type} is none of proto3's")


def read_tensor(buffer: memoryview) -> WireTensor | None:
    """Read a TensorProto that has a type, a shape and `tensor_content` or packed `float_val`, each at most once.

    Returns:
        None for any other TensorProto, valid or not: the ordinary messages shall read it.
    """
    found: dict[int, int | memoryview] = {}
    try:
        for number, wire_type, value in read_fields(buffer):
            expected = VARINT if number == DTYPE else BYTES
            if (
                number not in (DTYPE, TENSOR_SHAPE, TENSOR_CONTENT, FLOAT_VAL)
                or number in found
                or wire_type != expected
            ):
                return None
            found[number] = value
        shape = _read_shape(_view(found, TENSOR_SHAPE))
    except MalformedMessage:
        return None
    dtype = found.get(DTYPE, 0)
    if shape is None or not isinstance(dtype, int) or len(_view(found, FLOAT_VAL)) % 4:
        return None
    return WireTensor(dtype, shape, _view(found, TENSOR_CONTENT), _view(found, FLOAT_VAL))


def read_map_entry(buffer: memoryview) -> tuple[str, memoryview] | None:
    """Read key and value of an entry of a map from string to message; None for an unusual one."""
    fields = list(read_fields(buffer))
    if [(number, wire_type) for number, wire_type, _ in fields] != [(1, BYTES), (2, BYTES)]:
        return None
    key, value = fields[0][2], fields[1][2]
    assert isinstance(key, memoryview)  # noqa: S101  both are length-delimited
    assert isinstance(value, memoryview)  # noqa: S101
    try:
        return bytes(key).decode(), value
    except UnicodeDecodeError:
        return None


def _view(found: Mapping[int, int | memoryview], number: int) -> memoryview:
    value = found.get(number)
    return value if isinstance(value, memoryview) else memoryview(b"")


def _read_shape(buffer: memoryview) -> tuple[int, ...] | None:
    """Read a TensorShapeProto of plain sizes; None where axes have names or sizes are negative."""
    sizes = []
    for number, wire_type, value in read_fields(buffer):
        if (number, wire_type) != (2, BYTES) or not isinstance(value, memoryview):
            return None
        axis = list(read_fields(value))
        if len(axis) > 1 or any((number, wire_type) != (1, VARINT) for number, wire_type, _ in axis):
            return None
        size = axis[0][2] if axis else 0
        if not isinstance(size, int) or size >= 1 << 63:
            return None
        sizes.append(size)
    return tuple(sizes)
