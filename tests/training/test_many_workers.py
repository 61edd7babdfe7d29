"""Two worker processes train as one: same weights on both, same losses as a single process; a killed run resumes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.training.small_runs import network, phantoms
from training.run_record import read_run

ROOT = Path(__file__).parents[2]
LOSS_RTOL = 2e-3  # two halves of a batch are added up in another order
WEIGHT_ATOL = 1e-3  # of the largest, about 0.5: twelve steps of AdamW carry the order of sums on
TIMEOUT_S = 240


def write_config(folder, shards, strategy, steps=12):
    folder.mkdir()
    path = folder / "run.toml"
    top = f'folder = "{folder}"\nshards = "{shards}"\nstrategy = "{strategy}"\nthreads = 1\nsteps_per_round = 4\n'
    path.write_text(top + network(steps=steps, warmup_steps=1) + phantoms())
    return path


def start(config, *options, tf_config=None):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    if tf_config is not None:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    command = [sys.executable, "-m", "ich_triage", "train", str(config), *options]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    try:
        for process in processes:
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cluster(index):
    return {"cluster": {"worker": [f"127.0.0.1:{port}" for port in PORTS]}, "task": {"type": "worker", "index": index}}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


PORTS = free_ports(2)


def weights_of(folder):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("network/")]
    return {name: reader.get_tensor(name) for name in names if reader.get_tensor(name).dtype == np.float32}


def losses_of(folder):
    return [step["loss"] for step in read_run(folder).steps]


def follow(process, path):
    """Wait until a running process has written a file."""
    while not path.exists():
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("one") / "run"
    finish(start(write_config(folder, shards, "one")))
    return folder


@pytest.mark.slow
def test_two_workers_end_with_the_same_weights_and_the_losses_of_one(one_process, tmp_path, shards):
    folder = tmp_path / "two"
    config = write_config(folder, shards, "multi_worker")

    finish(*(start(config, tf_config=cluster(index)) for index in (0, 1)))

    first, second = weights_of(folder / "checkpoints"), weights_of(folder / "checkpoints-worker-1")
    assert first.keys() == second.keys()
    assert len(first) > 10
    for name, weight in first.items():
        np.testing.assert_array_equal(weight, second[name], err_msg=name)
    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), rtol=LOSS_RTOL)


@pytest.mark.slow
def test_workers_stopped_and_then_killed_in_mid_round_resume_and_end_at_the_same_loss(one_process, tmp_path, shards):
    folder = tmp_path / "broken"
    config = write_config(folder, shards, "multi_worker")

    stopped = [start(config, tf_config=cluster(index)) for index in (0, 1)]
    follow(stopped[1], folder / "checkpoints-worker-1" / "ckpt-4.index")
    stopped[1].send_signal(signal.SIGTERM)  # one worker is asked, both stop after the same step
    told = [process.communicate(timeout=TIMEOUT_S)[1] for process in stopped]

    assert [process.returncode for process in stopped] == [1, 1]
    steps = {line for text in told for line in text.splitlines() if line.startswith("Error: Stopped at step")}
    assert len(steps) == 1, told

    killed = [start(config, "--resume", tf_config=cluster(index)) for index in (0, 1)]
    follow(killed[0], folder / "checkpoints" / "ckpt-8.index")
    killed[1].send_signal(signal.SIGKILL)
    killed[1].communicate()
    _, left = killed[0].communicate(timeout=TIMEOUT_S)

    assert killed[0].returncode == 1
    assert "was lost after step" in left
    assert "Traceback" not in left

    finish(*(start(config, "--resume", tf_config=cluster(index)) for index in (0, 1)))

    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), rtol=LOSS_RTOL)
    for name, weight in weights_of(folder / "checkpoints").items():
        expected = weights_of(one_process / "checkpoints")[name]
        np.testing.assert_allclose(weight, expected, rtol=LOSS_RTOL, atol=WEIGHT_ATOL, err_msg=name)


@pytest.mark.slow
def test_worker_that_never_comes_is_named(tmp_path, shards):
    config = write_config(tmp_path / "alone", shards, "multi_worker")
    config.write_text(config.read_text() + "[cluster]\nwait_s = 5\n")
    alone = start(config, tf_config=cluster(0))

    _, told = alone.communicate(timeout=TIMEOUT_S)

    assert alone.returncode == -signal.SIGKILL
    assert f"After 5 s no worker answers at 127.0.0.1:{PORTS[1]}" in told
