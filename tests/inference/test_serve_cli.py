"""The command `ich-triage serve` as a process: its line on stdout, its logs, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from inference.memory import keep_large_blocks
from inference.serve_cli import serve
from inference.serving_client import ServingClient

ROOT = Path(__file__).parents[2]
FREE_PORTS = ("--port", "0", "--rest-port", "0")


@pytest.fixture
def models(tmp_path, threshold_model) -> Path:
    (tmp_path / "threshold").mkdir()
    (tmp_path / "threshold" / "1").symlink_to(threshold_model)
    return tmp_path


def started(models: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "ich_triage.py", "serve", "--models", str(models), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"ICH_TRIAGE_LOG__FORMAT": "json"}, **pipes)


def test_it_serves_until_sigterm_and_ends_cleanly(models):
    with started(models, *FREE_PORTS) as process:
        ports = json.loads(process.stdout.readline())
        with ServingClient(f"127.0.0.1:{ports['grpc_port']}", "threshold") as client:
            assert client.spec()[1] == 1
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)

    events = [json.loads(line) for line in errors.splitlines() if line.startswith('{"')]
    assert (process.returncode, rest) == (0, "")
    assert [event["event"] for event in events] == ["version_available", "server_ready"]
    assert events[1]["grpc_port"] == ports["grpc_port"]
    assert str(models) not in json.dumps(events)


def test_it_can_be_stopped_while_it_waits_for_a_model(tmp_path):
    (tmp_path / "threshold").mkdir()
    with started(tmp_path, *FREE_PORTS) as process:
        time.sleep(2)  # whether it still imports TensorFlow or waits already
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert process.returncode == 0


def test_a_missing_folder_is_told_with_its_reason(tmp_path):
    result = CliRunner().invoke(serve, ["--models", str(tmp_path / "none"), *FREE_PORTS])

    assert result.exit_code == 1
    assert "The models folder cannot be read: No such file or directory" in result.output


def test_a_port_that_is_none_is_a_usage_error():
    assert CliRunner().invoke(serve, ["--port", "70000"]).exit_code == 2


def test_malloc_keeps_large_blocks_where_it_is_glibc():
    assert keep_large_blocks() is True or sys.platform != "linux"
