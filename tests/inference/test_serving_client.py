"""The worker's client against a real server on loopback."""

from __future__ import annotations

import numpy as np
import pytest

from inference.circuit import CircuitState
from inference.serving_client import ServingClient
from triage.errors import ServingError, ServingUnavailable
from triage.finding import ModelSpec


@pytest.fixture
def client(served):
    with ServingClient(served, "threshold", timeout_s=60, batch_slabs=4) as client:
        yield client


def slabs(count: int, hu: int = 0) -> np.ndarray:
    return np.full((count, 8, 6, 3), hu, np.int16)


def test_spec_comes_with_the_version_that_gave_it(client):
    spec, version = client.spec()

    assert (spec.name, spec.rows, spec.columns, version) == ("threshold", 8, 6, 1)


def test_maps_of_several_requests_are_joined_in_order(client):
    spec, version = client.spec()
    hu = slabs(11)
    hu[5:9, 2, 3, 1] = 60  # above the model's 50 HU, in the middle channel

    maps = client.predict(hu, spec=spec, version=version)

    assert maps.dtype == np.float32
    assert maps.shape == (11, 8, 6)
    assert np.argwhere(maps == 1).tolist() == [[5, 2, 3], [6, 2, 3], [7, 2, 3], [8, 2, 3]]


def test_no_slabs_give_no_maps(client):
    spec, version = client.spec()

    assert client.predict(slabs(0), spec=spec, version=version).shape == (0, 8, 6)


def test_a_version_that_went_away_is_temporary(client):
    spec, _ = client.spec()

    with pytest.raises(ServingUnavailable, match=r"NOT_FOUND.*Specific\(threshold, 7\)") as error:
        client.predict(slabs(1), spec=spec, version=7)

    assert error.value.code == "NOT_FOUND"


def test_a_slab_that_the_model_cannot_take_is_an_error_of_ours(client):
    spec, version = client.spec()

    with pytest.raises(ServingError, match="INVALID_ARGUMENT") as error:
        client.predict(slabs(1)[..., :1], spec=spec, version=version)

    assert not isinstance(error.value, ServingUnavailable)


def test_maps_of_another_size_are_refused(client):
    spec, version = client.spec()

    with pytest.raises(ServingError, match=r"shape \(2, 8, 6\); expected \(2, 9, 6\)"):
        client.predict(slabs(2), spec=spec.model_copy(update={"rows": 9}), version=version)


def test_availability_is_that_of_the_model(client, served):
    with ServingClient(served, "unknown") as other, ServingClient("127.0.0.1:1", "threshold") as nobody:
        assert client.available()
        assert not other.available()
        assert not nobody.available(timeout_s=0.5)


def test_nobody_at_the_port_is_temporary():
    with (
        ServingClient("127.0.0.1:1", "threshold", timeout_s=0.5) as client,
        pytest.raises(ServingUnavailable, match="UNAVAILABLE"),
    ):
        client.spec()


def test_the_other_endpoint_answers_where_one_is_down(served):
    with ServingClient(f"127.0.0.1:1,{served}", "threshold", timeout_s=60) as client:
        for _ in range(3):
            assert client.spec()[1] == 1


def test_a_study_is_read_to_its_end_by_its_version_while_replicas_differ(served, threshold_model, tmp_path):
    from inference.model_server.server import ModelServer
    from triage.settings import ServerSettings

    (tmp_path / "threshold").mkdir()
    (tmp_path / "threshold" / "2").symlink_to(threshold_model)
    newer = ModelServer(ServerSettings(models_folder=tmp_path, port=0, rest_port=0))
    try:
        endpoints = f"{served},127.0.0.1:{newer.start().grpc}"
        with ServingClient(endpoints, "threshold", timeout_s=60, batch_slabs=1) as client:
            spec, version = client.spec()
            maps = client.predict(slabs(5), spec=spec, version=version)

            assert (version, maps.shape) == (1, (5, 8, 6))
            assert client.circuits == dict.fromkeys(endpoints.split(","), CircuitState.CLOSED)
    finally:
        newer.stop()


def test_spec_is_a_model_spec(client):
    assert isinstance(client.spec()[0], ModelSpec)
