"""Requests of several clients share one run, with TF Serving's parameters and errors."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import grpc
import numpy as np
import pytest

from inference.model_server.batch_scheduler import BatchScheduler
from inference.model_server.batched_run import BatchedRun
from inference.model_server.batching_parameters import BatchingParameters, read_batching_parameters
from inference.model_server.metrics import Metrics
from inference.model_server.statuses import StatusError
from triage.errors import ConfigError

SIGNATURE = ({"hu:0"}, {"doubled:0"})


class Doubling:
    """Doubles its rows, and notes the batches that it gets."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, feeds, fetches, timeout_ms):
        self.entered.set()
        self.go.wait(60)
        hu = feeds["hu:0"]
        self.batches.append(hu.reshape(len(hu), -1)[:, 0].tolist())
        return [2 * hu]


@pytest.fixture
def batching():
    schedulers = []

    def _batching(run, **parameters):
        scheduler = BatchScheduler(BatchingParameters(**parameters))
        schedulers.append(scheduler)
        scheduler.start()
        return BatchedRun(run, scheduler, [SIGNATURE, (set(), {"spec:0"})], Metrics())

    yield _batching
    for scheduler in schedulers:
        scheduler.stop()


def ask(batched, *rows: int, inner: int = 1, timeout_ms: int = 0):
    hu = np.repeat(np.array(rows, np.int16).reshape(-1, 1), inner, axis=1)
    [doubled] = batched({"hu:0": hu}, ["doubled:0"], timeout_ms)
    return doubled[:, 0].tolist()


def test_a_request_alone_runs_at_once(batching):
    run = Doubling()

    assert ask(batching(run), 1, 2) == [2, 4]
    assert run.batches == [[1, 2]]


def test_requests_that_come_together_share_a_run(batching):
    run = Doubling()
    batched = batching(run, max_batch_size=6, batch_timeout_s=5.0)

    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda rows: ask(batched, *rows), [(1, 2), (3, 4), (5, 6)]))

    assert replies == [[2, 4], [6, 8], [10, 12]]
    assert [sorted(batch) for batch in run.batches] == [[1, 2, 3, 4, 5, 6]]  # full: nobody waited for the 5 s


def test_a_batch_that_is_not_full_waits_for_its_timeout(batching):
    batched = batching(Doubling(), max_batch_size=6, batch_timeout_s=0.3)
    started_s = time.monotonic()

    assert ask(batched, 1) == [2]

    assert time.monotonic() - started_s >= 0.3


def test_batches_are_filled_up_to_an_allowed_size(batching):
    run = Doubling()
    batched = batching(run, max_batch_size=8, max_execution_batch_size=8, allowed_batch_sizes=(4, 8))

    assert ask(batched, 1, 2, 3) == [2, 4, 6]
    assert ask(batched, *range(5)) == [0, 2, 4, 6, 8]
    assert run.batches == [[1, 2, 3, 1], [0, 1, 2, 3, 4, 0, 0, 0]]  # with the first row of the last request


def test_a_request_larger_than_a_batch_is_refused(batching):
    with pytest.raises(StatusError) as error:
        ask(batching(Doubling(), max_batch_size=2, max_execution_batch_size=2), 1, 2, 3)

    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.message == "Task size 3 is larger than maximum input batch size 2"


def test_a_large_request_is_split_where_that_is_allowed(batching):
    run = Doubling()
    batched = batching(run, max_batch_size=9, enable_large_batch_splitting=True, max_execution_batch_size=4)

    assert ask(batched, *range(9)) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert [len(batch) for batch in run.batches] == [4, 4, 1]


def test_a_full_queue_is_unavailable(batching):
    run = Doubling()
    run.go.clear()
    batched = batching(run, max_batch_size=1, max_execution_batch_size=1, max_enqueued_batches=2)

    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(ask, batched, 1)
        run.entered.wait(60)  # the only thread has it, and the queue is empty again
        others = [pool.submit(ask, batched, number) for number in (2, 3, 4, 5)]
        refused = list(itertools.islice(as_completed(others), 2))  # two wait, and the others are told at once
        run.go.set()

    for each in refused:
        assert each.exception().code is grpc.StatusCode.UNAVAILABLE
        assert each.exception().message == (
            "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
            "max_enqueued_batches is 2"
        )
    assert first.result() == [2]
    assert sum(each.exception() is None for each in others) == 2


def test_different_inner_sizes_fail_each_request_of_the_batch(batching):
    batched = batching(Doubling(), max_batch_size=2, max_execution_batch_size=2, batch_timeout_s=5.0)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, batched, 1, inner=inner) for inner in (1, 2)]
        errors = [each.exception() for each in asked]

    assert {error.code for error in errors} == {grpc.StatusCode.FAILED_PRECONDITION}
    assert errors[0].message.startswith("Tensors with name 'hu:0' from different tasks have different shapes")


def test_inner_sizes_are_filled_up_where_that_is_asked_for(batching):
    batched = batching(
        Doubling(), max_batch_size=2, max_execution_batch_size=2, batch_timeout_s=5.0, pad_variable_length_inputs=True
    )

    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda inner: ask(batched, inner, inner=inner), (1, 3)))

    assert replies == [[2], [6]]


def test_an_output_without_rows_fails(batching):
    batched = batching(lambda feeds, fetches, timeout_ms: [np.zeros(())])
    with pytest.raises(StatusError, match="Batched output tensor has 0 dimensions"):
        ask(batched, 1)

    batched = batching(lambda feeds, fetches, timeout_ms: [np.zeros((3, 1))])
    with pytest.raises(StatusError, match="0th dimension does not equal the sum"):
        ask(batched, 1)


def test_a_deadline_that_passes_in_the_queue_ends_the_request(batching):
    run = Doubling()
    batched = batching(run, max_batch_size=9, batch_timeout_s=0.3)

    with pytest.raises(StatusError) as error:
        ask(batched, 1, timeout_ms=100)

    assert error.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.value.message == "Run() timeout exceeded while waiting in batching queue"
    assert run.batches == []


@pytest.mark.parametrize(
    ("feeds", "fetches", "text"),
    [
        ({}, ["spec:0"], "Batching Run() must have at least one input tensor"),
        ({"hu:0": np.zeros(())}, ["doubled:0"], "Batching Run() input tensors must have at least one dimension"),
    ],
)
def test_what_has_no_rows_cannot_be_batched(batching, feeds, fetches, text):
    with pytest.raises(StatusError) as error:
        batching(Doubling())(feeds, fetches, 0)

    assert (error.value.code, error.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_what_matches_no_signature_runs_alone(batching):
    run = Doubling()

    assert len(batching(run, batch_timeout_s=9.0)({"hu:0": np.zeros((1, 1))}, ["other:0"], 0)) == 1


def test_a_run_that_breaks_ends_every_request(batching):
    def broken(feeds, fetches, timeout_ms):
        raise ZeroDivisionError

    with pytest.raises(StatusError, match="INTERNAL"):
        ask(batching(broken), 1)


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "batching.config").write_text(text)
    return tmp_path / "batching.config"


def test_parameters_are_read_as_tf_serving_reads_them(tmp_path):
    file = write(
        tmp_path,
        "max_batch_size { value: 64 } batch_timeout_micros { value: 2000 } max_enqueued_batches { value: 7 } "
        "num_batch_threads { value: 1 } allowed_batch_sizes: 32 allowed_batch_sizes: 64",
    )

    parameters = read_batching_parameters(file)

    assert parameters == BatchingParameters(
        max_batch_size=64,
        batch_timeout_s=0.002,
        max_enqueued_batches=7,
        num_batch_threads=1,
        allowed_batch_sizes=(32, 64),
        max_execution_batch_size=64,
    )
    assert [parameters.padded_size(size) for size in (1, 32, 33, 65)] == [32, 32, 64, 65]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 64 } allowed_batch_sizes: 32", "must equal max_batch_size"),
        ("max_batch_size { value: 4 } allowed_batch_sizes: [4, 4]", "monotonically increasing"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive"),
        ("max_batch_size: 4", "is no BatchingParameters in text form"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_batching_parameters(write(tmp_path, text))


def test_workers_of_a_batching_server_get_their_own_maps(tmp_path, threshold_model):
    from inference.model_server.server import ModelServer
    from inference.serving_client import ServingClient
    from triage.settings import ServerSettings

    (tmp_path / "threshold").mkdir()
    (tmp_path / "threshold" / "1").symlink_to(threshold_model)
    file = write(
        tmp_path,
        "max_batch_size { value: 16 } batch_timeout_micros { value: 20000 } num_batch_threads { value: 1 } "
        "allowed_batch_sizes: 8 allowed_batch_sizes: 16",
    )
    server = ModelServer(ServerSettings(models_folder=tmp_path, port=0, rest_port=0, batching_parameters_file=file))
    address = f"127.0.0.1:{server.start().grpc}"

    def read(worker: int) -> bool:
        hu = np.zeros((5, 8, 6, 3), np.int16)
        hu[worker, 0, 0, 1] = 60
        with ServingClient(address, "threshold", timeout_s=60) as client:
            spec, version = client.spec()
            return all(
                np.argwhere(client.predict(hu, spec=spec, version=version)).tolist() == [[worker, 0, 0]]
                for _ in range(5)
            )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    server.stop()
