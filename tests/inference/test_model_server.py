"""Predict, GetModelMetadata and GetModelStatus of the embedded server: codes and texts are TF Serving's."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from inference.serving_messages import MODEL_SERVICE, PREDICTION_SERVICE, serving_message

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
DT_INT16, DT_INT32, DT_FLOAT, DT_STRING = 5, 3, 1, 7


@pytest.fixture(scope="module")
def channel(served):
    with grpc.insecure_channel(served) as channel:
        yield channel


@pytest.fixture
def call(channel):
    """Call a method with plain grpcio and the public messages."""

    def _call(method: str, request, reply: str, service: str = PREDICTION_SERVICE, timeout: float = 60):
        return channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=serving_message(reply).FromString,
        )(request, timeout=timeout)

    return _call


@pytest.fixture
def predict(call):
    return lambda request: call("Predict", request, "PredictResponse")


def request(name="threshold", *, shape=(2, 8, 6, 3), hu=60, dtype=DT_INT16, **spec):
    made = serving_message("PredictRequest")()
    made.model_spec.name = name
    for key, value in spec.items():
        if key == "version":
            made.model_spec.version.value = value
        else:
            setattr(made.model_spec, key, value)
    tensor = made.inputs["hu"]
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.int_val.append(hu)
    return made


def changed(change) -> object:
    made = request()
    change(made)
    return made


def with_content(content: bytes):
    made = request()
    made.inputs["hu"].int_val.clear()
    made.inputs["hu"].tensor_content = content
    return made


def test_reply_has_values_in_the_field_of_their_type(predict):
    reply = predict(request(shape=(1, 8, 6, 3)))

    tensor = reply.outputs["probability"]
    assert (tensor.dtype, [axis.size for axis in tensor.tensor_shape.dim]) == (DT_FLOAT, [1, 8, 6])
    assert (list(tensor.float_val), tensor.tensor_content) == ([1.0] * 48, b"")
    assert reply.model_spec.name == "threshold"
    assert reply.model_spec.signature_name == "serving_default"
    assert reply.model_spec.version.value == 1


def test_any_signature_can_be_asked_for(predict):
    made = serving_message("PredictRequest")()
    made.model_spec.name, made.model_spec.signature_name = "threshold", "spec"
    made.inputs["rows"].dtype = DT_INT16
    made.inputs["rows"].tensor_shape.dim.add(size=2)

    tensor = predict(made).outputs["json"]

    assert (tensor.dtype, [axis.size for axis in tensor.tensor_shape.dim]) == (DT_STRING, [2])
    assert all(b'"rows": 8' in text for text in tensor.string_val)


def test_declared_shape_is_not_checked(predict):
    reply = predict(request(shape=(1, 5, 4, 3)))  # the signature says 8 x 6; the graph takes any

    assert [axis.size for axis in reply.outputs["probability"].tensor_shape.dim] == [1, 5, 4]


def test_no_slabs_are_no_error(predict):
    reply = predict(request(shape=(0, 8, 6, 3)))

    assert [axis.size for axis in reply.outputs["probability"].tensor_shape.dim] == [0, 8, 6]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], [0.0, 0.0]),  # none: zeros
        ([60], [1.0, 1.0]),  # too few: the last one is repeated
        ([0, 0, 0, 0, 60, 0], [0.0, 1.0]),
        ([0, 60, 0, 0, 0, 0, 0, 60, 60], [1.0, 0.0]),  # surplus ones are ignored
        ([0, 65536 + 60, 0, 0, 0, 0], [1.0, 0.0]),  # overflow wraps
    ],
)
def test_values_fill_the_shape_by_tensorflow_s_rules(predict, values, expected):
    made = request(shape=(1, 1, 2, 3))
    made.inputs["hu"].int_val[:] = values

    assert list(predict(made).outputs["probability"].float_val) == expected


def test_content_wins_over_values(predict):
    made = request(shape=(1, 1, 1, 3), hu=60)
    made.inputs["hu"].tensor_content = np.zeros(3, "<i2").tobytes()

    assert list(predict(made).outputs["probability"].float_val) == [0.0]


REFUSED = {
    "no spec": (changed(lambda r: r.ClearField("model_spec")), INVALID, "Missing ModelSpec"),
    "empty spec": (changed(lambda r: r.model_spec.Clear()), INVALID, "Missing ModelSpec"),
    "no name": (request("", version=1), INVALID, "ModelSpec has no name specified."),
    "unknown label": (
        request(version_label="canary"),
        INVALID,
        "Unrecognized servable version label: canary",
    ),
    "label of an unknown model": (
        request("none", version_label="stable"),
        INVALID,
        "Unrecognized servable version label: stable",
    ),
    "unknown model": (request("none"), NOT_FOUND, "Servable not found for request: Latest(none)"),
    "unknown version": (
        request(version=7),
        NOT_FOUND,
        "Servable not found for request: Specific(threshold, 7)",
    ),
    "version 0": (request(version=0), NOT_FOUND, "Servable not found for request: Specific(threshold, 0)"),
    "version -1": (request(version=-1), NOT_FOUND, "Servable not found for request: Specific(threshold, -1)"),
    "unknown signature": (
        request(signature_name="classify"),
        FAILED_PRECONDITION,
        'Serving signature key "classify" not found.',
    ),
    "no input": (
        changed(lambda r: r.inputs.clear()),
        INVALID,
        "input size does not match signature: 0!=1 len({}) != len({hu}). Sent extra: {}. Missing but required: {hu}.",
    ),
    "surplus inputs": (
        changed(lambda r: (r.inputs["b"].CopyFrom(r.inputs["hu"]), r.inputs["a"].CopyFrom(r.inputs["hu"]))),
        INVALID,
        "input size does not match signature: 3!=1 len({a,b,hu}) != len({hu}). Sent extra: {a,b}. "
        "Missing but required: {}.",
    ),
    "wrong name": (
        changed(lambda r: (r.inputs["image"].CopyFrom(r.inputs["hu"]), r.inputs.pop("hu"))),
        INVALID,
        "Signature input alias: hu(feed name: serving_default_hu:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {image}, or default input alias set: ",
    ),
    "content too short": (with_content(b"\0" * 575), INVALID, "tensor parsing error: hu"),
    "content too long": (with_content(b"\0" * 577), INVALID, "tensor parsing error: hu"),
    "negative size": (request(shape=(-1, 8, 6, 3)), INVALID, "tensor parsing error: hu"),
    "sizes beyond any memory": (request(shape=(2**40, 8, 6, 3)), INVALID, "tensor parsing error: hu"),
    "no slabs of a size beyond any address": (
        request(shape=(0, 2**40, 2**40, 3)),
        INVALID,
        "tensor parsing error: hu",
    ),
    "more axes than TensorFlow has": (request(shape=(1,) * 255), INVALID, "tensor parsing error: hu"),
    "no type": (request(dtype=0), INVALID, "tensor parsing error: hu"),
    "unknown type": (request(dtype=99), INVALID, "tensor parsing error: hu"),
    "unknown output": (
        changed(lambda r: r.output_filter.append("mask")),
        INVALID,
        "output tensor alias not found in signature: mask Outputs expected to be in the set {probability}.",
    ),
    "output twice": (
        changed(lambda r: r.output_filter.extend(["probability", "probability"])),
        INVALID,
        "duplicate output tensor alias: probability",
    ),
    "other type": (request(dtype=DT_INT32), INVALID, "Expects arg[0] to be int16 but int32 is provided"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_predict_refuses_as_tf_serving_does(predict, case):
    made, code, details = REFUSED[case]

    with pytest.raises(grpc.RpcError) as error:
        predict(made)

    assert (error.value.code(), error.value.details()) == (code, details)


def test_earlier_checks_win_over_later_ones(predict):
    made = request("none", signature_name="none", dtype=0)
    made.output_filter.append("none")

    with pytest.raises(grpc.RpcError, match="Latest\\(none\\)"):
        predict(made)


def test_the_graph_s_own_error_comes_through(predict):
    with pytest.raises(grpc.RpcError) as error:
        predict(request(shape=(2, 8, 6, 1)))

    assert error.value.code() is INVALID
    assert "slice index 1 of dimension 3 out of bounds" in error.value.details()


def test_long_details_are_cut(predict):
    with pytest.raises(grpc.RpcError) as error:
        predict(request("m" * 3000))

    assert len(error.value.details()) == 1024 + len("...TRUNCATED")
    assert error.value.details().endswith("m...TRUNCATED")


def test_bytes_that_are_no_message_are_an_internal_error(channel):
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(f"/{PREDICTION_SERVICE}/Predict")(b"\xff\xff\xff", timeout=60)

    assert error.value.code() is grpc.StatusCode.INTERNAL


def test_other_methods_are_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(f"/{PREDICTION_SERVICE}/PredictStreamed")(b"", timeout=60)

    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_metadata_is_the_whole_map_of_signatures(call):
    asked = serving_message("GetModelMetadataRequest")(metadata_field=["signature_def"])
    asked.model_spec.name = "threshold"

    reply = call("GetModelMetadata", asked, "GetModelMetadataResponse")

    signatures = serving_message("SignatureDefMap")()
    assert reply.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert reply.metadata["signature_def"].Unpack(signatures)
    assert sorted(signatures.signature_def) == ["__saved_model_init_op", "serving_default", "spec"]
    assert signatures.signature_def["serving_default"].inputs["hu"].dtype == DT_INT16
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("threshold", 1)


@pytest.mark.parametrize(
    ("name", "fields", "code", "details"),
    [
        (None, ["signature_def"], INVALID, "Missing ModelSpec"),
        ("none", [], INVALID, "GetModelMetadataRequest must specify at least one metadata_field"),
        ("none", ["signature_def", "foo"], INVALID, "Metadata field foo is not supported"),
        ("none", ["signature_def"], NOT_FOUND, "Servable not found for request: Latest(none)"),
    ],
)
def test_metadata_refuses_as_tf_serving_does(call, name, fields, code, details):
    asked = serving_message("GetModelMetadataRequest")(metadata_field=fields)
    if name:
        asked.model_spec.name = name

    with pytest.raises(grpc.RpcError) as error:
        call("GetModelMetadata", asked, "GetModelMetadataResponse")

    assert (error.value.code(), error.value.details()) == (code, details)


def status_request(name, version=None):
    asked = serving_message("GetModelStatusRequest")()
    if name is not None:
        asked.model_spec.name = name
    if version is not None:
        asked.model_spec.version.value = version
    return asked


def test_status_of_a_served_version(call):
    reply = call("GetModelStatus", status_request("threshold", 1), "GetModelStatusResponse", MODEL_SERVICE)

    [status] = reply.model_version_status
    assert (status.version, status.state, status.status.error_code) == (1, 30, 0)


@pytest.mark.parametrize(
    ("asked", "code", "details"),
    [
        (status_request(None), INVALID, "Missing ModelSpec"),
        (status_request("none"), NOT_FOUND, "Could not find any versions of model none"),
        (status_request("threshold", 7), NOT_FOUND, "Could not find version 7 of model threshold"),
    ],
)
def test_status_refuses_as_tf_serving_does(call, asked, code, details):
    with pytest.raises(grpc.RpcError) as error:
        call("GetModelStatus", asked, "GetModelStatusResponse", MODEL_SERVICE)

    assert (error.value.code(), error.value.details()) == (code, details)


@pytest.mark.parametrize("service", ["", "PredictionService", "ModelService"])
def test_health_is_serving(channel, service):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=60)

    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_tensorflow_serving_api_s_stubs_get_the_same_answer(channel):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    made = predict_pb2.PredictRequest()
    made.model_spec.name = "threshold"
    made.inputs["hu"].CopyFrom(tf.make_tensor_proto(np.full((2, 8, 6, 3), 60, np.int16)))

    reply = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(made, timeout=60)

    assert tf.make_ndarray(reply.outputs["probability"]).tolist() == np.ones((2, 8, 6)).tolist()
    assert reply.model_spec.version.value == 1
