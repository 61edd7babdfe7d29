"""What a monitoring host sees of a worker: studies, calls, and which endpoints are left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from inference.circuit import CircuitState
from inference.serving_client import ServingClient
from inference.worker_metrics import WorkerMetrics
from inference.worker_probes import WorkerProbes
from triage.errors import ConfigError, ServingUnavailable

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:1"


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def client(served):
    with ServingClient(f"{NOBODY},{served}", "threshold", timeout_s=60) as client:
        for _ in range(8):
            client.spec()
        yield client


@pytest.fixture
def metrics(client):
    return WorkerMetrics(client)


@pytest.fixture
def port(metrics):
    probes = WorkerProbes("127.0.0.1", 0, metrics)
    probes.start()
    yield probes.port
    probes.stop()


def test_state_of_each_circuit_is_shown(metrics, served):
    text = metrics.exposition()

    assert f'ich_worker_circuit_state{{endpoint="{NOBODY}",state="open"}} 1' in text
    assert f'ich_worker_circuit_state{{endpoint="{NOBODY}",state="closed"}} 0' in text
    assert f'ich_worker_circuit_state{{endpoint="{served}",state="closed"}} 1' in text


def test_calls_are_counted_by_endpoint_and_code(metrics, served):
    text = metrics.exposition()

    assert f'ich_worker_calls_total{{endpoint="{NOBODY}",code="UNAVAILABLE"}} 3' in text  # then it is left alone
    assert f'ich_worker_calls_total{{endpoint="{served}",code="OK"}} 8' in text


def test_studies_are_counted_by_outcome_and_their_seconds_by_step():
    metrics = WorkerMetrics()

    metrics.study_ended("analysed", {"build": 0.5, "predict": 1.0})
    metrics.study_ended("analysed", {"build": 0.25, "predict": 1.0})
    metrics.study_ended("waits", {})

    text = metrics.exposition()
    assert 'ich_worker_studies_total{outcome="analysed"} 2' in text
    assert 'ich_worker_studies_total{outcome="waits"} 1' in text
    assert 'ich_worker_step_seconds_total{step="build"} 0.75' in text
    assert 'ich_worker_step_seconds_total{step="predict"} 2' in text


def test_a_worker_whose_model_is_away_lives_and_is_not_ready(port, metrics, served):
    away = get(port, "/health")[0], get(port, "/ready")[0]
    metrics.model_seen(available=True)

    assert away == (200, 503)
    assert get(port, "/ready") == get(port, "/health")
    status, body = get(port, "/ready")
    assert (status, json.loads(body)) == (
        200,
        {"model_available": True, "circuits": {NOBODY: CircuitState.OPEN.value, served: CircuitState.CLOSED.value}},
    )
    assert get(port, "/metrics") == (200, metrics.exposition())
    assert get(port, "/other")[0] == 404


def test_a_taken_port_names_the_setting(port, metrics):
    with pytest.raises(ConfigError, match=r"worker\.metrics_port"):
        WorkerProbes("127.0.0.1", port, metrics)


def test_the_worker_s_command_tells_where_its_metrics_are(tmp_path, served):
    (tmp_path / "triage.toml").write_text(
        f'[storage]\nfolder = "{tmp_path}"\n[worker]\nendpoint = "{served}"\nmodel_name = "threshold"\n'
        'metrics_port = 0\npoll_interval_s = 0.05\n[log]\nformat = "json"\n'
    )
    command = [sys.executable, "ich_triage.py", "work", "--config", str(tmp_path / "triage.toml")]
    with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as process:
        port = json.loads(process.stdout.readline())["metrics_port"]
        status, body = get(port, "/health")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert (status, list(json.loads(body)["circuits"])) == (200, [served])
    assert process.returncode == 0


def test_an_endpoint_that_says_it_does_not_serve_is_not_asked():
    from concurrent import futures

    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    says = health.HealthServicer()
    says.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(says, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    with ServingClient(f"127.0.0.1:{port}", "threshold", timeout_s=5) as client:
        with pytest.raises(ServingUnavailable, match="NOT_SERVING"):
            client.spec()
        assert client.calls == {(f"127.0.0.1:{port}", "UNAVAILABLE"): 3}  # then it is left alone

    server.stop(None)
