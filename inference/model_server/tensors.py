"""TensorProto and arrays, by TensorFlow's own rules of reading and writing.

Reference:
    tensorflow/core/framework/tensor.cc (Tensor::FromProto, FromProtoField, AsProtoField, AsProtoTensorContent).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from inference import wire

LARGEST_TENSOR_BYTES = 2**31 - 1  # what one message can carry; a shape alone shall not fill the memory
MOST_AXES = 254  # tensorflow/core/framework/tensor_shape.h
STRING = 7  # DT_STRING
STRING_VAL = 8

# Number and name of the TensorProto field of each DataType, and the form of its elements there.
_VALUE_FIELDS = {
    1: (5, "float_val", np.float32),
    2: (6, "double_val", np.float64),
    3: (7, "int_val", np.int32),
    4: (7, "int_val", np.uint8),
    5: (7, "int_val", np.int16),
    6: (7, "int_val", np.int8),
    8: (9, "scomplex_val", np.float32),
    9: (10, "int64_val", np.int64),
    10: (11, "bool_val", np.bool_),
    11: (7, "int_val", np.int8),  # qint8
    12: (7, "int_val", np.uint8),  # quint8
    13: (7, "int_val", np.int32),  # qint32
    14: (13, "half_val", np.uint16),  # bfloat16: the bits
    15: (7, "int_val", np.int16),  # qint16
    16: (7, "int_val", np.uint16),  # quint16
    17: (7, "int_val", np.uint16),
    18: (12, "dcomplex_val", np.float64),
    19: (13, "half_val", np.uint16),  # half: the bits
    22: (16, "uint32_val", np.uint32),
    23: (17, "uint64_val", np.uint64),
}

Array = npt.NDArray[Any]


class TensorParsingError(ValueError):
    """A TensorProto that TensorFlow would not take."""


def array_of_wire(tensor: wire.WireTensor) -> Array:
    """Give a tensor looked at in place as an array on the same bytes where that is possible.

    Raises:
        TensorParsingError: type, shape and content do not fit together.
    """
    floats = tensor.float_val if tensor.dtype == wire.DT_FLOAT else b""  # of other types this field is not looked at
    return _array(tensor.dtype, tensor.shape, tensor.content, np.frombuffer(floats, "<f4"))


def array_of_message(proto: Any) -> Array:
    """Give a TensorProto as an array: too few values repeat the last one, none are zeros, surplus ones are ignored.

    Raises:
        TensorParsingError: unknown type, negative or unknown size, or content that does not fit the shape.
    """
    if proto.tensor_shape.unknown_rank:
        raise TensorParsingError("the shape has no rank")
    shape = tuple(axis.size for axis in proto.tensor_shape.dim)
    values: Any = ()
    if proto.dtype == STRING:
        values = np.array([*proto.string_val, b""], object)[:-1]  # the last one keeps numpy from guessing a type
    elif proto.dtype in _VALUE_FIELDS:
        values = np.array(getattr(proto, _VALUE_FIELDS[proto.dtype][1]))
    return _array(proto.dtype, shape, memoryview(proto.tensor_content), values)


def tensor_parts(array: Array, *, as_content: bool = False) -> list[wire.Part]:
    """Write an array as a TensorProto in parts, its values in the `*_val` field of its type or as `tensor_content`."""
    dtype = tf.dtypes.as_dtype(array.dtype).as_datatype_enum
    if dtype == STRING:
        return _string_parts(array)
    number, _, form = _VALUE_FIELDS[dtype]
    flat = np.ascontiguousarray(array).reshape(-1)
    if as_content:
        return wire.tensor_parts(dtype, array.shape, flat, values_field=wire.TENSOR_CONTENT)
    values: Array = flat.view(form)
    packed = values if values.dtype.kind == "f" else packed_varints(values)
    return wire.tensor_parts(dtype, array.shape, packed, values_field=number)


def packed_varints(values: Array) -> npt.NDArray[np.uint8]:
    """Write integers as packed varints; negative ones as 64-bit two's complement (ten bytes)."""
    if values.size == 0 or (values.min() >= 0 and values.max() < 0x80):
        return values.astype(np.uint8)
    wide = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values.astype(np.uint64)
    shifts = np.arange(0, 70, 7, dtype=np.uint64)
    groups = wide[:, None] >> shifts  # (N, 10): what is left from each group of seven bits on
    more = np.concatenate([groups[:, 1:] > 0, np.zeros((len(wide), 1), bool)], axis=1)
    written = (groups & np.uint64(0x7F)).astype(np.uint8) | (more.astype(np.uint8) << 7)
    kept = np.concatenate([np.ones((len(wide), 1), bool), more[:, :-1]], axis=1)
    packed: npt.NDArray[np.uint8] = written[kept]
    return packed


def _array(dtype: int, shape: tuple[int, ...], content: memoryview, values: Any) -> Array:
    if dtype != STRING and dtype not in _VALUE_FIELDS:
        raise TensorParsingError(f"type number {dtype} cannot be sent")
    if len(shape) > MOST_AXES or any(size < 0 for size in shape):
        raise TensorParsingError("the shape is not valid")
    count = math.prod(shape)
    element = np.dtype(object) if dtype == STRING else np.dtype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    if count * element.itemsize > LARGEST_TENSOR_BYTES:
        raise TensorParsingError("the shape is larger than a message")
    if count == 0:
        return _empty(shape, element)
    if len(content) == 0:
        return _filled(dtype, values, count).view(element).reshape(shape)
    if dtype == STRING:
        return _string_list(content, count).reshape(shape)
    if len(content) != count * element.itemsize:
        raise TensorParsingError("the content does not fit the shape")
    return np.frombuffer(content, element).reshape(shape)


def _empty(shape: tuple[int, ...], element: np.dtype[Any]) -> Array:
    try:
        return np.empty(shape, element)
    except ValueError as error:  # without elements, and with other axes beyond any address
        raise TensorParsingError("the shape is larger than a message") from error


def _filled(dtype: int, values: Any, count: int) -> Array:
    """Give `count` elements: surplus ones are dropped, the last one is repeated, none are zeros."""
    if dtype == STRING:
        filled = np.full(count, values[-1] if len(values) else b"", object)
        filled[: len(values)] = values[:count]
        return filled
    form = _VALUE_FIELDS[dtype][2]
    per_element = 2 if dtype in (8, 18) else 1  # complex numbers travel as pairs
    pairs = values[: len(values) // per_element * per_element].astype(form).reshape(-1, per_element)[:count]
    filled = np.zeros((count, per_element), form)
    filled[: len(pairs)] = pairs
    if len(pairs):
        filled[len(pairs) :] = pairs[-1]
    return filled.reshape(-1)


def _string_list(content: memoryview, count: int) -> Array:
    """Read strings from `tensor_content`: all lengths as varints, then all bytes (tensor_coding.cc)."""
    try:
        at, lengths = 0, []
        for _ in range(count):
            length, at = wire.read_varint(content, at)
            lengths.append(length)
    except wire.MalformedMessage as error:
        raise TensorParsingError("the strings' lengths are cut short") from error
    if at + sum(lengths) != len(content):
        raise TensorParsingError("the strings do not fit the content")
    strings = np.empty(count, object)
    for index, length in enumerate(lengths):
        strings[index] = bytes(content[at : at + length])
        at += length
    return strings


def _string_parts(array: Array) -> list[wire.Part]:
    header = wire.tensor_parts(STRING, array.shape, np.empty(0, np.uint8), values_field=wire.TENSOR_CONTENT)
    for value in array.reshape(-1):
        header += wire.field_parts(STRING_VAL, [value if isinstance(value, bytes) else str(value).encode()])
    return header
