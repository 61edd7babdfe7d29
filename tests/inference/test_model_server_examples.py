"""Classify, Regress and MultiInference with signatures on serialised examples."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import grpc
import pytest

from inference.serving_messages import PREDICTION_SERVICE, serving_message

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def write_example_model(folder: Path) -> None:
    """Write a SavedModel on the feature `volume_ml`: class by a line at 1 mL, and the volume doubled."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        examples = tf.compat.v1.placeholder(tf.string, [None], name="examples")
        features = {"volume_ml": tf.io.FixedLenFeature([], tf.float32, 0.0)}
        volume_ml = tf.io.parse_example(examples, features)["volume_ml"]
        bleed = tf.cast(volume_ml >= 1.0, tf.float32)
        scores = tf.stack([1.0 - bleed, bleed], axis=1)
        classes = tf.tile(tf.constant([["none", "bleed"]]), [tf.shape(examples)[0], 1])
        info = tf.compat.v1.saved_model.build_tensor_info
        signature = tf.compat.v1.saved_model.build_signature_def
        inputs = {"inputs": info(examples)}
        signatures = {
            "serving_default": signature(inputs, {"classes": info(classes), "scores": info(scores)}, CLASSIFY),
            "doubled": signature(inputs, {"outputs": info(2.0 * volume_ml)}, REGRESS),
            "square": signature(inputs, {"outputs": info(scores)}, REGRESS),
        }
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        with tf.compat.v1.Session(graph=graph) as session:
            builder.add_meta_graph_and_variables(session, ["serve"], signatures)
    builder.save()


@pytest.fixture(scope="module")
def example_ports(tmp_path_factory):
    from inference.model_server.server import ModelServer
    from triage.settings import ServerSettings

    models = tmp_path_factory.mktemp("models")
    (models / "bleeds").mkdir()
    write_example_model(models / "bleeds" / "1")
    server = ModelServer(ServerSettings(models_folder=models, port=0, rest_port=0))
    yield server.start()
    server.stop()


@pytest.fixture
def call(example_ports):
    def _call(method: str, request):
        replies = {"Classify": "ClassificationResponse", "Regress": "RegressionResponse"}
        reply = serving_message(replies.get(method, "MultiInferenceResponse"))
        with grpc.insecure_channel(f"127.0.0.1:{example_ports.grpc}") as channel:
            stub = channel.unary_unary(f"/{PREDICTION_SERVICE}/{method}", response_deserializer=reply.FromString)
            return stub(request.SerializeToString(), timeout=60)

    return _call


def request(kind: str, *volumes_ml: float, name: str = "bleeds", signature: str = "", context: float | None = None):
    made = serving_message(kind)()
    if name:
        made.model_spec.name, made.model_spec.signature_name = name, signature
    target = made.input.example_list
    if context is not None:
        target = made.input.example_list_with_context
        target.context.features.feature["volume_ml"].float_list.value.append(context)
    for volume_ml in volumes_ml:
        features = target.examples.add().features
        if context is None:
            features.feature["volume_ml"].float_list.value.append(volume_ml)
    return made


def test_classes_and_scores_of_each_example(call):
    reply = call("Classify", request("ClassificationRequest", 0.5, 3.0))

    rows = [[(each.label, each.score) for each in row.classes] for row in reply.result.classifications]
    assert rows == [[("none", 1.0), ("bleed", 0.0)], [("none", 0.0), ("bleed", 1.0)]]
    assert (reply.model_spec.signature_name, reply.model_spec.version.value) == ("serving_default", 1)


def test_value_of_each_example(call):
    reply = call("Regress", request("RegressionRequest", 0.5, 3.0, signature="doubled"))

    assert [each.value for each in reply.result.regressions] == [1.0, 6.0]


def test_the_context_is_part_of_each_example(call):
    reply = call("Regress", request("RegressionRequest", 0, 0, signature="doubled", context=4.0))

    assert [each.value for each in reply.result.regressions] == [8.0, 8.0]


@pytest.mark.parametrize(
    ("made", "code", "details"),
    [
        (request("ClassificationRequest", 1.0, name=""), INVALID, "Missing ModelSpec"),
        (
            request("ClassificationRequest", 1.0, name="none"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(none)",
        ),
        (
            request("ClassificationRequest", 1.0, signature="none"),
            INVALID,
            "No signature was found with the name: none",
        ),
        (
            request("ClassificationRequest", 1.0, signature="doubled"),
            INVALID,
            f"Expected classification signature method_name to be {CLASSIFY}. Was: {REGRESS}",
        ),
        (request("ClassificationRequest"), INVALID, "Input is empty."),
    ],
)
def test_classify_refuses_as_tf_serving_does(call, made, code, details):
    with pytest.raises(grpc.RpcError) as error:
        call("Classify", made)

    assert (error.value.code(), error.value.details()) == (code, details)


def test_regress_refuses_a_matrix(call):
    with pytest.raises(grpc.RpcError) as error:
        call("Regress", request("RegressionRequest", 1.0, 2.0, signature="square"))

    assert error.value.details() == (
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]"
    )


def multi(*tasks: tuple[str, str], name: str = "bleeds"):
    made = serving_message("MultiInferenceRequest")()
    for method, signature in tasks:
        task = made.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    made.input.CopyFrom(request("RegressionRequest", 3.0).input)
    return made


def test_several_signatures_in_one_run(call):
    reply = call("MultiInference", multi((CLASSIFY, ""), (REGRESS, "doubled")))

    classes, values = reply.results
    assert classes.classification_result.classifications[0].classes[1].score == 1.0
    assert values.regression_result.regressions[0].value == 6.0
    assert [each.model_spec.signature_name for each in reply.results] == ["serving_default", "doubled"]


@pytest.mark.parametrize(
    ("made", "code", "details"),
    [
        (multi(), INVALID, "ModelSpec has no name specified."),
        (multi((CLASSIFY, ""), (CLASSIFY, "")), INVALID, "Duplicate evaluation of signature: serving_default"),
        (multi((CLASSIFY, "none")), INVALID, "Requested signature not found in model graph: none"),
        (
            multi(("predict", "doubled")),
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: predict",
        ),
    ],
)
def test_multi_inference_refuses_as_tf_serving_does(call, made, code, details):
    with pytest.raises(grpc.RpcError) as error:
        call("MultiInference", made)

    assert (error.value.code(), error.value.details()) == (code, details)


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        (
            "classify",
            {"examples": [{"volume_ml": 2.0}]},
            200,
            {"results": [[["none", 0.0], ["bleed", 1.0]]]},
        ),
        (
            "regress",
            {"signature_name": "doubled", "context": {"volume_ml": 0.25}, "examples": [{}]},
            200,
            {"results": [0.5]},
        ),
        (
            "classify",
            {},
            400,
            {"error": "JSON Value: {} When method is classify, key 'examples' is expected and was not found"},
        ),
        ("regress", {"examples": [7]}, 400, {"error": "Example must be JSON object but got JSON Number"}),
        (
            "classify",
            {"examples": [{"volume_ml": [1.0, "a"]}]},
            400,
            {"error": "Unexpected element type in feature: volume_ml expecting type: float"},
        ),
        (
            "classify",
            {"examples": [{"volume_ml": None}]},
            400,
            {"error": "Feature: volume_ml has element with unexpected JSON type: Null"},
        ),
    ],
)
def test_examples_as_json(example_ports, path, body, status, expected):
    connection = http.client.HTTPConnection("127.0.0.1", example_ports.rest, timeout=60)
    connection.request("POST", f"/v1/models/bleeds:{path}", json.dumps(body))
    reply = connection.getresponse()

    assert (reply.status, json.loads(reply.read())) == (status, expected)
    connection.close()
