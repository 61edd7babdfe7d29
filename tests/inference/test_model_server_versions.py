"""Versions come, go and break under a running server."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from inference.model_server.server import ModelServer
from inference.serving_client import ServingClient
from inference.serving_messages import MODEL_SERVICE, serving_message
from tests.inference.conftest import write_threshold_model
from triage.errors import ConfigError, ServingError, ServingUnavailable
from triage.settings import ServerSettings

AVAILABLE, UNLOADING, END = 30, 40, 50
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]


@pytest.fixture
def models(tmp_path: Path, threshold_model: Path) -> Path:
    publish(threshold_model, tmp_path / "threshold", 1)
    return tmp_path


@dataclass
class Started:
    """A running server, its address, and a client on it."""

    server: ModelServer
    address: str
    client: ServingClient


@pytest.fixture
def start(models: Path) -> Iterator[Callable[[], Started]]:
    with ExitStack() as stack:

        def _start() -> Started:
            server = ModelServer(settings(models))
            stack.callback(server.stop)
            address = f"127.0.0.1:{server.start().grpc}"
            return Started(server, address, stack.enter_context(ServingClient(address, "threshold", timeout_s=60)))

        yield _start


def settings(models: Path, **others) -> ServerSettings:
    return ServerSettings(models_folder=models, **({"port": 0, "rest_port": 0, "poll_interval_s": 0.05} | others))


def publish(model: Path, base: Path, version: int) -> Path:
    """Copy, then rename: as a version must come into its folder."""
    base.mkdir(exist_ok=True)
    shutil.copytree(model, base / f".tmp-{version}")
    return (base / f".tmp-{version}").rename(base / str(version))


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def served_version(started: Started) -> int:
    return started.client.spec()[1]


def states(started: Started) -> dict[int, tuple[int, int]]:
    """State and error code by version, as GetModelStatus tells them."""
    request = serving_message("GetModelStatusRequest")()
    request.model_spec.name = "threshold"
    with grpc.insecure_channel(started.address) as channel:
        raw = channel.unary_unary(f"/{MODEL_SERVICE}/GetModelStatus")(request.SerializeToString(), timeout=60)
    reply = serving_message("GetModelStatusResponse").FromString(raw)
    return {each.version: (each.state, each.status.error_code) for each in reply.model_version_status}


def test_no_request_fails_while_versions_change(start, models, threshold_model):
    started = start()
    spec, _ = started.client.spec()
    hu = np.zeros((2, 8, 6, 3), np.int16)
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                version = served_version(started)
                started.client.predict(hu, spec=spec, version=version)
            except ServingUnavailable as error:
                if error.code != "NOT_FOUND" or "Specific" not in str(
                    error
                ):  # between asking and predicting it changed
                    failures.append(error)
            except Exception as error:  # noqa: BLE001
                failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for version in range(2, 6):
        publish(threshold_model, models / "threshold", version)
        wait_for(lambda version=version: served_version(started) == version)
    done.set()
    thread.join()

    assert failures == []
    wait_for(lambda: states(started)[4] == (END, 0))
    assert states(started)[5] == (AVAILABLE, 0)


def test_removing_the_newest_rolls_back(start, models, threshold_model):
    publish(threshold_model, models / "threshold", 2)
    started = start()
    assert served_version(started) == 2

    shutil.rmtree(models / "threshold" / "2")

    wait_for(lambda: served_version(started) == 1)
    wait_for(lambda: states(started)[2] == (END, 0))


def test_a_broken_version_is_reported_and_the_old_one_serves_on(start, models, threshold_model):
    started = start()
    half = publish(threshold_model, models / ".half", 1)
    (half / "saved_model.pb").write_bytes((half / "saved_model.pb").read_bytes()[:-100])
    half.rename(models / "threshold" / "2")

    wait_for(lambda: states(started).get(2, (0, 0))[0] == END)

    assert states(started)[2][1] != 0
    assert states(started)[1] == (AVAILABLE, 0)
    assert served_version(started) == 1


def test_a_version_whose_variables_are_half_copied_is_reported_and_the_old_one_serves_on(
    start, models, threshold_model
):
    started = start()
    half = publish(threshold_model, models / ".half", 1)
    data = half / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    half.rename(models / "threshold" / "2")

    wait_for(lambda: states(started).get(2, (0, 0))[0] == END)

    assert states(started)[2][1] != 0
    assert served_version(started) == 1


def test_a_symbolic_link_is_followed_out_of_the_folder_and_a_broken_one_is_reported(
    start, models, threshold_model, tmp_path_factory
):
    outside = publish(threshold_model, tmp_path_factory.mktemp("outside"), 7)
    started = start()
    (models / "threshold" / "3").symlink_to(outside / "none")
    wait_for(lambda: states(started).get(3, (0, 0))[0] == END)
    assert (states(started)[3][1], served_version(started)) == (NOT_FOUND, 1)

    (models / "threshold" / "4").symlink_to(outside)

    wait_for(lambda: served_version(started) == 4)


def test_a_fix_comes_under_a_higher_number(start, models, threshold_model):
    started = start()
    (models / "threshold" / "2").mkdir()
    wait_for(lambda: states(started).get(2, (0, 0))[0] == END)

    publish(threshold_model, models / "threshold", 3)

    wait_for(lambda: served_version(started) == 3)
    wait_for(lambda: states(started)[1] == (END, 0))


def test_the_same_number_is_loaded_again_after_it_was_unloaded(start, models, tmp_path):
    started = start()
    spec, _ = started.client.spec()
    publish_high = tmp_path / "high"
    write_threshold_model(publish_high, threshold_hu=1000.0)
    shutil.rmtree(models / "threshold" / "1")
    wait_for(lambda: states(started)[1][0] == END)

    publish(publish_high, models / "threshold", 1)

    wait_for(lambda: states(started)[1][0] == AVAILABLE)
    hu = np.full((1, 8, 6, 3), 60, np.int16)
    assert started.client.predict(hu, spec=spec, version=1).max() == 0.0


def test_a_description_without_rows_is_read_too(start, models):
    started = start()
    write_threshold_model(models / ".tmp", rows=False)

    (models / ".tmp").rename(models / "threshold" / "2")

    wait_for(lambda: served_version(started) == 2)


def test_nothing_changes_while_the_folder_is_away(start, models):
    started = start()

    (models / "threshold").rename(models / "away")
    time.sleep(0.3)  # several polls

    assert served_version(started) == 1


def test_an_empty_folder_unloads_everything(start, models):
    started = start()

    shutil.rmtree(models / "threshold" / "1")

    wait_for(lambda: not started.client.available())
    with pytest.raises(ServingUnavailable, match=r"Latest\(threshold\)"):
        started.client.spec()


def test_a_version_without_variables_is_loaded_and_then_fails_each_request(start, models, threshold_model):
    shutil.rmtree(publish(threshold_model, models / "threshold", 2) / "variables")
    started = start()
    spec, version = started.client.spec()

    with pytest.raises(ServingError, match="FAILED_PRECONDITION"):
        started.client.predict(np.zeros((1, 8, 6, 3), np.int16), spec=spec, version=version)


def test_a_version_in_use_is_unloaded_after_its_last_request(start, models, threshold_model):
    started = start()
    hu = np.full((1, 8, 6, 3), 60, np.int16)

    with started.server.manager.servable("threshold", None) as (servable, version):
        publish(threshold_model, models / "threshold", 2)
        wait_for(lambda: states(started)[1] == (UNLOADING, 0))
        assert served_version(started) == 2
        [maps] = servable.run({"serving_default_hu:0": hu}, ["StatefulPartitionedCall:0"])

    assert (version, maps.min()) == (1, 1.0)
    wait_for(lambda: states(started)[1] == (END, 0))


def test_a_server_whose_model_is_broken_does_not_start(models):
    (models / "threshold" / "1" / "saved_model.pb").write_bytes(b"no model")

    with pytest.raises(ServingError, match="did not become available"):
        ModelServer(settings(models)).start()


def test_a_server_without_models_says_what_it_expects(tmp_path):
    with pytest.raises(ConfigError, match="expected a folder a model"):
        ModelServer(settings(tmp_path)).start()
    with pytest.raises(ConfigError, match="cannot be read"):
        ModelServer(settings(tmp_path / "none")).start()


def test_a_taken_port_is_an_error_not_half_of_the_traffic(start, models):
    started = start()
    port = int(started.address.rpartition(":")[2])

    with pytest.raises(ConfigError, match=f"Port {port}"):
        ModelServer(settings(models, port=port)).start()


def test_ports_open_only_once_a_version_is_there(models, threshold_model):
    shutil.rmtree(models / "threshold" / "1")
    server = ModelServer(settings(models))
    ports: list = []
    thread = threading.Thread(target=lambda: ports.append(server.start()))
    thread.start()
    time.sleep(0.3)
    assert ports == []

    publish(threshold_model, models / "threshold", 1)

    thread.join(60)
    assert ports
    server.stop()


def test_waiting_for_a_model_can_be_given_up(models):
    shutil.rmtree(models / "threshold" / "1")
    give_up = threading.Event()
    threading.Timer(0.3, give_up.set).start()

    with pytest.raises(ServingError):
        ModelServer(settings(models)).start(give_up)


def test_idle_connections_do_not_delay_a_request(start):
    started = start()
    idle = [grpc.insecure_channel(started.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(200)]
    for channel in idle:
        grpc.channel_ready_future(channel).result(timeout=60)

    started_s = time.monotonic()
    served_version(started)

    assert time.monotonic() - started_s < 10.0
    for channel in idle:
        channel.close()
