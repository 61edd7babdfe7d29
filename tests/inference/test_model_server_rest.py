"""The REST door of the embedded server, asked as curl would."""

from __future__ import annotations

import http.client
import json

import pytest


@pytest.fixture
def ask(ports):
    def _ask(method: str, path: str, body: str | bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", ports.rest, timeout=60)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    return _ask


@pytest.fixture
def predict(ask):
    def _predict(body: object, path: str = "/v1/models/threshold:predict"):
        status, text = ask("POST", path, body if isinstance(body, str) else json.dumps(body))
        return status, json.loads(text)

    return _predict


def slab(hu: int) -> list:
    return [[[0, hu, 0]]]  # 1 x 1 pixel, three channels


def test_rows_in_give_rows_out(predict):
    status, reply = predict({"instances": [slab(60), slab(40)]})

    assert (status, reply) == (200, {"predictions": [[[1.0]], [[0.0]]]})


def test_named_rows_give_the_same(predict):
    assert predict({"instances": [{"hu": slab(60)}]}) == (200, {"predictions": [[[1.0]]]})


def test_columns_in_give_columns_out(predict):
    assert predict({"inputs": [slab(60)]}) == (200, {"outputs": [[[1.0]]]})
    assert predict({"inputs": {"hu": [slab(60)]}}) == (200, {"outputs": [[[1.0]]]})


def test_a_version_can_be_named(predict):
    status, _ = predict({"instances": [slab(60)]}, "/v1/models/threshold/versions/1:predict")

    assert status == 200


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("", 400, "JSON Parse error: The document is empty"),
        ("{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("[1, 2", 400, "JSON Parse error: Missing a comma or ] after an array element. at offset: 5"),
        ('{"a": 1} x', 400, "JSON Parse error: The document root must not be followed by other values. at offset: 9"),
        ("7", 400, "JSON Value: 7 Is not object"),
        ("{}", 400, "Missing 'inputs' or 'instances' key"),
        ({"signature_name": "none"}, 400, 'Serving signature name: "none" not found in signature def'),
        (
            {"signature_name": 7},
            400,
            'JSON Value: {\n    "signature_name": 7\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ({"instances": []}, 400, "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
        ({"instances": 1}, 400, "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array"),
        (
            {"instances": [slab(1), [[[0, 1]]]]},
            400,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 3 "
            "but got: 2",
        ),
        (
            {"instances": [[[[0, 1], [2]]]]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Encountered list at "
            "unexpected size: 1 at level: 2 expected size: 2",
        ),
        (
            {"instances": [{"image": 1}]},
            400,
            "Failed to process element: 0 key: image of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does "
            "not have named input: image",
        ),
        (
            {"instances": [[[[0, 1.5, 0]]]]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1.5 Type: Number "
            "is not of expected type: int16",
        ),
        (
            {"inputs": [[[["a"]]]]},
            400,
            'JSON Value: "a" Type: String is not of expected type: int16',
        ),
        ({"inputs": {"image": [1]}}, 400, "Missing named input: hu in 'inputs' object."),
    ],
)
def test_predict_refuses_as_tf_serving_does(predict, body, status, error):
    assert predict(body) == (status, {"error": error})


def test_unknown_models_are_not_found(predict, ask):
    assert predict({"instances": [1]}, "/v1/models/none:predict") == (
        404,
        {"error": "Servable not found for request: Latest(none)"},
    )
    assert ask("GET", "/v1/models/none")[0] == 404


def test_status_of_a_model(ask):
    status, text = ask("GET", "/v1/models/threshold")

    assert status == 200
    assert json.loads(text) == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_of_a_model(ask):
    status, text = ask("GET", "/v1/models/threshold/metadata")

    reply = json.loads(text)
    assert status == 200
    assert reply["model_spec"] == {"name": "threshold", "signature_name": "", "version": "1"}
    hu = reply["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["hu"]
    assert (hu["dtype"], [axis["size"] for axis in hu["tensor_shape"]["dim"]]) == ("DT_INT16", ["-1", "8", "6", "3"])


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models", 400, '{ "error": "Missing model name in request." }'),
        ("POST", "/v1/models/threshold", 400, '{ "error": "Malformed request: POST /v1/models/threshold" }'),
        ("GET", "/v1/other", 400, '{ "error": "Malformed request: GET /v1/other" }'),
        ("DELETE", "/v1/models/threshold", 400, '{ "error": "Malformed request: DELETE /v1/models/threshold" }'),
        ("GET", "/", 404, ""),
    ],
)
def test_other_requests_are_refused_as_tf_serving_does(ask, method, path, status, text):
    assert ask(method, path) == (status, text)


def test_strings_come_as_text(predict):
    status, reply = predict({"signature_name": "spec", "inputs": [0]})

    assert status == 200
    assert json.loads(reply["outputs"][0])["name"] == "threshold"


def test_requests_are_counted_under_tf_serving_s_names(ask, predict):
    predict({"instances": [slab(60)]})

    status, page = ask("GET", "/monitoring/prometheus/metrics")

    lines = page.splitlines()
    assert status == 200
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert any(
        line.startswith(':tensorflow:serving:request_count{model_name="threshold",status="OK"}') for line in lines
    )
    count = ':tensorflow:serving:request_latency_count{model_name="threshold",API="Predict",entrypoint="REST"}'
    assert any(line.startswith(count) for line in lines)
    assert any('le="+Inf"' in line for line in lines)
    assert any(line.startswith(":tensorflow:cc:saved_model:load_attempt_count{") for line in lines)
