"""The wire form written by hand is what the messages would write, and reading gives up where it must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import wire
from inference.serving_messages import message_class, serving_message

TensorProto = message_class("tensorflow.TensorProto")


def tensor_bytes(array: np.ndarray, field: int = wire.TENSOR_CONTENT, dtype: int = wire.DT_INT16) -> bytes:
    return b"".join(wire.tensor_parts(dtype, array.shape, array, values_field=field))


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=4))
def test_tensors_are_written_as_the_message_class_reads_them(shape):
    array = np.zeros(1, np.int16)

    proto = TensorProto.FromString(b"".join(wire.tensor_parts(5, shape, array, values_field=wire.TENSOR_CONTENT)))

    assert [axis.size for axis in proto.tensor_shape.dim] == shape
    assert (proto.dtype, proto.tensor_content) == (5, b"\0\0")


def test_a_request_is_one_message_with_spec_inputs_and_filter():
    hu = np.arange(6, dtype=np.int16).reshape(2, 3)
    spec = serving_message("ModelSpec")(name="ich_unet")
    parts = wire.tensor_parts(5, hu.shape, hu, values_field=wire.TENSOR_CONTENT)

    raw = wire.predict_request_bytes(spec.SerializeToString(), {"hu": parts}, ["probability"])

    request = serving_message("PredictRequest").FromString(raw)
    assert request.model_spec == spec
    assert request.inputs["hu"].tensor_content == hu.tobytes()
    assert list(request.output_filter) == ["probability"]


def test_packed_floats_have_the_bytes_of_the_array():
    array = np.array([0.25, -1.5, np.inf], np.float32)

    proto = TensorProto.FromString(tensor_bytes(array, wire.FLOAT_VAL, wire.DT_FLOAT))

    assert list(proto.float_val) == [0.25, -1.5, np.inf]


@settings(deadline=None)
@given(st.integers(-(2**63), 2**64 - 1))
def test_varints_come_back(value):
    written = wire.varint(value)

    assert wire.read_varint(memoryview(written), 0) == (value % 2**64, len(written))


def test_a_tensor_is_looked_at_in_place():
    raw = tensor_bytes(np.arange(4, dtype=np.int16).reshape(2, 2))

    tensor = wire.read_tensor(memoryview(raw))

    assert tensor is not None
    assert (tensor.dtype, tensor.shape, bytes(tensor.content)) == (5, (2, 2), b"\0\0\1\0\2\0\3\0")


def proto(**fields) -> bytes:
    return TensorProto(dtype=5, **fields).SerializeToString()


@pytest.mark.parametrize(
    "raw",
    [
        proto(int_val=[1]),
        proto(version_number=1),
        proto(tensor_shape={"unknown_rank": True}),
        proto(tensor_shape={"dim": [{"size": 1, "name": "z"}]}),
        proto(tensor_shape={"dim": [{"size": -1}]}),
        proto(tensor_content=b"a") + proto(tensor_content=b"b"),  # the last one counts, the message class knows
        b"\x08",
        b"\xff",
        b"\x0a\x05a",
    ],
)
def test_other_tensors_are_left_to_the_messages(raw):
    assert wire.read_tensor(memoryview(raw)) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw):
    try:
        for _ in wire.read_fields(memoryview(raw)):
            pass
    except wire.MalformedMessage:
        pass
    tensor = wire.read_tensor(memoryview(raw))
    if tensor is not None:
        read = TensorProto.FromString(raw)
        assert (read.dtype, read.tensor_content) == (_int32(tensor.dtype), bytes(tensor.content))


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def test_floats_that_are_cut_short_are_left_to_the_messages():
    raw = TensorProto(dtype=1).SerializeToString() + b"\x2a\x03abc"  # packed float_val of three bytes

    assert wire.read_tensor(memoryview(raw)) is None
