"""Tensors are read and written as TensorFlow itself reads and writes them, for every type that can be sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

tf = pytest.importorskip("tensorflow")

from inference import wire  # noqa: E402
from inference.model_server.tensors import (  # noqa: E402
    TensorParsingError,
    array_of_message,
    array_of_wire,
    packed_varints,
    tensor_parts,
)
from inference.serving_messages import message_class  # noqa: E402

TensorProto = message_class("tensorflow.TensorProto")

ARRAYS = [
    np.array([[1.5, -2.0], [np.inf, 0.0]], np.float32),
    np.array([1e300, -0.0]),
    np.array([[-5, 2**31 - 1]], np.int32),
    np.array([0, 255], np.uint8),
    np.array([-32768, 32767, 60], np.int16),
    np.array([-128, 127], np.int8),
    np.array([b"", b"\xff\0text"], object),
    np.array([1 + 2j, -1j], np.complex64),
    np.array([1 + 2j, -1j], np.complex128),
    np.array([-(2**63), 2**63 - 1, 7], np.int64),
    np.array([True, False]),
    np.array([0, 65535], np.uint16),
    np.array([0, 2**32 - 1], np.uint32),
    np.array([0, 2**64 - 1], np.uint64),
    np.array([1.5, -2.0], np.float16),
    np.array([1.5, -2.0]).astype(tf.bfloat16.as_numpy_dtype),
    np.float32(7.0) * np.ones((), np.float32),
    np.zeros((0, 3), np.int16),
]


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_what_is_written_is_read_by_tensorflow_and_by_us(array, as_content):
    raw = b"".join(tensor_parts(array, as_content=as_content))

    theirs = tf.make_ndarray(tf.compat.v1.make_tensor_proto(0).__class__.FromString(raw))
    ours = array_of_message(TensorProto.FromString(raw))

    for read in (theirs, ours):
        assert (read.shape, read.tolist()) == (array.shape, array.tolist())
    assert ours.dtype == array.dtype


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_what_tensorflow_writes_is_read(array):
    theirs = tf.make_tensor_proto(array, tf.string) if array.dtype == np.dtype(object) else tf.make_tensor_proto(array)

    read = array_of_message(TensorProto.FromString(theirs.SerializeToString()))

    assert (read.shape, read.dtype, read.tolist()) == (array.shape, array.dtype, array.tolist())


def test_in_place_and_by_message_are_the_same():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    raw = b"".join(tensor_parts(array, as_content=True))

    in_place = array_of_wire(wire.read_tensor(memoryview(raw)))

    assert in_place.tolist() == array_of_message(TensorProto.FromString(raw)).tolist() == array.tolist()
    assert not in_place.flags.owndata


def test_values_of_another_type_s_field_are_not_looked_at():
    proto = TensorProto(dtype=5, tensor_shape={"dim": [{"size": 2}]}, float_val=[7.0, float("nan")])

    in_place = array_of_wire(wire.read_tensor(memoryview(proto.SerializeToString())))

    assert in_place.tolist() == array_of_message(proto).tolist() == [0, 0]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_packed_varints_are_those_of_the_messages(values):
    packed = packed_varints(np.array(values, np.int64)).tobytes()

    proto = TensorProto(int64_val=values).SerializeToString()
    assert proto == (b"" if not values else b"R" + wire.varint(len(packed)) + packed)


def test_strings_can_come_as_content():
    proto = TensorProto(dtype=7, tensor_shape={"dim": [{"size": 2}]}, tensor_content=b"\x01\x03abcd")

    assert array_of_message(proto).tolist() == [b"a", b"bcd"]


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": 7, "tensor_content": b"\x05a"},
        {"dtype": 7, "tensor_content": b"\x80"},
        {"dtype": 20},  # a resource
        {"dtype": 101},  # a reference
        {"dtype": 1, "tensor_shape": {"unknown_rank": True}},
        {"dtype": 1, "tensor_shape": {"dim": [{"size": 2**62}, {"size": 2**62}]}},
    ],
)
def test_what_tensorflow_would_not_take_is_refused(fields):
    with pytest.raises(TensorParsingError):
        array_of_message(TensorProto(**fields))
