"""`models.config`, labels, version policies and HandleReloadConfigRequest."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from inference.model_server.server import ModelServer
from inference.serving_messages import MODEL_SERVICE, PREDICTION_SERVICE, serving_message
from triage.errors import ConfigError, ServingError
from triage.settings import ServerSettings

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture
def models(tmp_path: Path, threshold_model: Path) -> Path:
    for model, version in (("a", 1), ("a", 2), ("a", 3), ("b", 1)):
        (tmp_path / model).mkdir(exist_ok=True)
        (tmp_path / model / str(version)).symlink_to(threshold_model)
    return tmp_path


def entry(name: str, base_path: object, more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {more} }}'


@pytest.fixture
def start(models):
    started = []

    def _start(config: str | None = None, **settings):
        file = None
        if config is not None:
            file = models / "models.config"
            file.write_text(f"model_config_list {{ {config} }}")
        options = {"port": 0, "rest_port": 0, "poll_interval_s": 0.05, "models_config_file": file} | settings
        server = ModelServer(ServerSettings(models_folder=models, **options))
        started.append(server)
        return Endpoint(f"127.0.0.1:{server.start().grpc}")

    yield _start
    for server in started:
        server.stop()


class Endpoint:
    """Calls a running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, service: str, method: str, request, reply: str):
        with grpc.insecure_channel(self.address) as channel:
            raw = channel.unary_unary(f"/{service}/{method}")(request.SerializeToString(), timeout=60)
        return serving_message(reply).FromString(raw)

    def version(self, name: str, label: str | None = None, version: int | None = None) -> int:
        """Ask for the description; gives the version that answered."""
        request = serving_message("PredictRequest")()
        request.model_spec.name, request.model_spec.signature_name = name, "spec"
        request.inputs["rows"].dtype = 5  # int16
        request.inputs["rows"].tensor_shape.dim.add(size=1)
        if label is not None:
            request.model_spec.version_label = label
        if version is not None:
            request.model_spec.version.value = version
        return self.call(PREDICTION_SERVICE, "Predict", request, "PredictResponse").model_spec.version.value

    def served(self, name: str) -> list[int]:
        request = serving_message("GetModelStatusRequest")()
        request.model_spec.name = name
        reply = self.call(MODEL_SERVICE, "GetModelStatus", request, "GetModelStatusResponse")
        return [each.version for each in reply.model_version_status if each.state == 30]

    def reload(self, config: str, metric_names: tuple[str, ...] = ()):
        request = serving_message("ReloadConfigRequest")(metric_names=metric_names)
        text_format.Parse(config, request.config)
        return self.call(MODEL_SERVICE, "HandleReloadConfigRequest", request, "ReloadConfigResponse")


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [3]),
        ("model_version_policy { latest { num_versions: 2 } }", [3, 2]),
        ("model_version_policy { all {} }", [3, 2, 1]),
        ("model_version_policy { specific { versions: 1 versions: 3 versions: 9 } }", [3, 1]),
    ],
)
def test_policies_choose_versions(start, models, policy, served):
    endpoint = start(entry("a", models / "a", policy))

    assert endpoint.served("a") == served


def test_paths_of_the_container_mean_the_models_folder(start):
    endpoint = start(entry("seen_as", "/models/b"))

    assert endpoint.version("seen_as") == 1


ALL = "model_version_policy { all {} }"
LABELLED = f'{ALL} version_labels {{ key: "stable" value: 2 }} version_labels {{ key: "canary" value: 3 }}'


def test_labels_name_versions(start, models):
    endpoint = start(entry("a", models / "a", LABELLED), labels_before_available=True)

    assert endpoint.version("a", "stable") == 2
    assert endpoint.version("a", "canary") == 3
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: other"):
        endpoint.version("a", "other")


def test_labels_at_start_need_to_be_allowed_as_in_tf_serving(start, models):
    with pytest.raises(ServingError) as error:
        start(entry("a", models / "a", LABELLED))

    assert str(error.value).startswith(
        "Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version"
    )


def test_reload_adds_and_removes_models(start, models):
    endpoint = start(entry("a", models / "a"))

    reply = endpoint.reload(f"model_config_list {{ {entry('b', models / 'b')} }}", (":tensorflow:serving:x",))

    assert reply.status.error_code == 0
    assert [(each.name, each.int64_value_increase) for each in reply.metric] == [(":tensorflow:serving:x", 0)]
    assert endpoint.version("b") == 1
    deadline = time.monotonic() + 60
    while endpoint.served("a") and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(grpc.RpcError) as error:
        endpoint.version("a")
    assert error.value.details() == "Servable not found for request: Latest(a)"


def test_reload_replaces_labels(start, models):
    endpoint = start(entry("a", models / "a", ALL))

    endpoint.reload(f"model_config_list {{ {entry('a', models / 'a', LABELLED)} }}")
    assert endpoint.version("a", "stable") == 2

    moved = LABELLED.replace("value: 2", "value: 1")
    endpoint.reload(f"model_config_list {{ {entry('a', models / 'a', moved)} }}")
    assert endpoint.version("a", "stable") == 1

    endpoint.reload(f"model_config_list {{ {entry('a', models / 'a', ALL)} }}")
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: stable"):
        endpoint.version("a", "stable")


@pytest.mark.parametrize(
    ("config", "code", "details"),
    [
        (
            "",
            INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        ),
        (
            "model_config_list { " + entry("a", "/a") + entry("a", "/b") + " }",
            INVALID,
            "Illegal to list model a multiple times in config list",
        ),
        (
            "model_config_list { " + entry("c", "c") + " }",
            INVALID,
            "Expected model c to have an absolute path or URI; got base_path()=c",
        ),
        (
            'model_config_list { config { name: "c" base_path: "/c" } }',
            INVALID,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            "model name is c",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/c" model_platform: "onnx" } }',
            INVALID,
            "Illegal to change a model's platform. For model a platform was tensorflow and new platform requested is "
            "onnx",
        ),
        (
            'model_config_list { config { name: "c" base_path: "/c" model_platform: "onnx" } }',
            INVALID,
            "Model c requests unsupported platform onnx",
        ),
        (
            "model_config_list { " + entry("a", "/a", 'version_labels { key: "x" value: 9 }') + " }",
            grpc.StatusCode.FAILED_PRECONDITION,
            "Request to assign label to version 9 of model a, which is not currently available for inference",
        ),
    ],
)
def test_reload_refuses_as_tf_serving_does(start, models, config, code, details):
    endpoint = start(entry("a", models / "a"))

    with pytest.raises(grpc.RpcError) as error:
        endpoint.reload(config)

    assert (error.value.code(), error.value.details()) == (code, details)
    assert endpoint.version("a") == 3


def test_reload_tells_of_a_new_model_that_does_not_load(start, models):
    endpoint = start(entry("a", models / "a"))
    (models / "c" / "1").mkdir(parents=True)

    with pytest.raises(grpc.RpcError) as error:
        endpoint.reload(f"model_config_list {{ {entry('a', models / 'a')} {entry('c', models / 'c')} }}")

    assert error.value.code() is grpc.StatusCode.UNKNOWN
    expected = (
        "1 model(s) did not become available: {{{name: c version: 1} due to error: NOT_FOUND: Could not find SavedModel"
    )
    assert error.value.details().startswith(expected)
    assert error.value.details().endswith("}, }")
    assert endpoint.version("a") == 3


def test_a_configuration_that_is_no_text_message_is_refused(start, models):
    with pytest.raises(ConfigError, match="is no ModelServerConfig in text form"):
        start("config { nmae: 1 }")


def test_a_version_that_is_a_link_out_of_the_folder_is_served(start, models, threshold_model, tmp_path):
    shutil.rmtree(models / "b")
    (models / "b").mkdir()
    (models / "b" / "7").symlink_to(threshold_model)

    assert start(entry("b", models / "b")).version("b") == 7
