"""An endpoint that does not answer is left alone, and found again by itself."""

from __future__ import annotations

import grpc
import pytest

from inference.circuit import FAILURES_TO_OPEN, OPEN_S, Circuit, CircuitState
from inference.serving_client import ServingClient
from triage.errors import ServingUnavailable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def circuit(clock):
    return Circuit("models.example:8500", clock=clock)


def open_it(circuit: Circuit) -> None:
    for _ in range(FAILURES_TO_OPEN):
        circuit.failed()


def test_it_opens_after_failures_in_a_row(circuit):
    circuit.failed()
    circuit.failed()
    circuit.answered()
    circuit.failed()
    assert (circuit.state, circuit.admits()) == (CircuitState.CLOSED, True)

    open_it(circuit)

    assert (circuit.state, circuit.admits()) == (CircuitState.OPEN, False)


def test_after_a_while_one_request_finds_out(circuit, clock):
    open_it(circuit)
    clock.now += OPEN_S

    assert [circuit.admits() for _ in range(3)] == [True, False, False]
    assert circuit.state is CircuitState.HALF_OPEN


def test_an_answer_closes_it(circuit, clock):
    open_it(circuit)
    clock.now += OPEN_S
    circuit.admits()

    circuit.answered()

    assert (circuit.state, circuit.admits()) == (CircuitState.CLOSED, True)


def test_another_failure_opens_it_again(circuit, clock):
    open_it(circuit)
    clock.now += OPEN_S
    circuit.admits()

    circuit.failed()

    assert (circuit.state, circuit.admits()) == (CircuitState.OPEN, False)


def test_a_request_of_which_nobody_hears_does_not_keep_it_open_for_ever(circuit, clock):
    open_it(circuit)
    clock.now += OPEN_S
    assert circuit.admits()

    clock.now += OPEN_S

    assert circuit.admits()


def test_a_dead_endpoint_is_not_asked_again_and_again():
    with ServingClient("127.0.0.1:1", "threshold", timeout_s=60) as client:
        with pytest.raises(ServingUnavailable):
            client.spec()
        assert client.circuits == {"127.0.0.1:1": CircuitState.OPEN}
        with pytest.raises(ServingUnavailable, match="no endpoint has answered lately"):
            client.spec()


def test_only_the_living_endpoint_is_asked(served):
    with ServingClient(f"127.0.0.1:1,{served}", "threshold", timeout_s=60) as client:
        for _ in range(8):
            client.spec()

        assert client.circuits == {"127.0.0.1:1": CircuitState.OPEN, served: CircuitState.CLOSED}


def test_a_refusal_is_an_answer(served):
    with ServingClient(served, "none", timeout_s=60) as client:
        for _ in range(5):
            with pytest.raises(ServingUnavailable, match=grpc.StatusCode.NOT_FOUND.name):
                client.spec()

        assert client.circuits == {served: CircuitState.CLOSED}
