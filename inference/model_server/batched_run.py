"""Runs requests of several clients together, as TF Serving does with `--enable_batching`.

Reference:
    tensorflow_serving/batching/batching_session.cc, batching_util.h.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf

from inference.model_server.batch_scheduler import Batch, BatchQueue, BatchScheduler, Task
from inference.model_server.metrics import Metrics
from inference.model_server.session_run import Array, Run
from inference.model_server.statuses import CODES, StatusError, failed_precondition, invalid_argument

TensorSet = tuple[frozenset[str], frozenset[str]]  # tensors fed, tensors fetched


class BatchedRun:
    """A `Run` that waits for others with the same inputs and outputs; what matches no signature runs alone.

    Args:
        run: runs the session.
        scheduler: has the limits and the threads.
        signatures: tensors fed and fetched by each signature.
        metrics: takes batch sizes and waits.
    """

    def __init__(
        self, run: Run, scheduler: BatchScheduler, signatures: Iterable[tuple[set[str], set[str]]], metrics: Metrics
    ) -> None:
        self._run = run
        self._scheduler = scheduler
        self._metrics = metrics
        self._queues: dict[TensorSet, BatchQueue] = {}
        for inputs, outputs in signatures:
            key = (frozenset(inputs), frozenset(outputs))
            fetches = sorted(outputs)
            self._queues[key] = scheduler.queue(lambda batch, fetches=fetches: self._run_batch(batch, fetches))  # type: ignore[misc]

    def __call__(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int) -> list[Array]:
        """Run once, together with others; see `session_run.Run`.

        Raises:
            StatusError: the request cannot be batched, the queue is full, or the batch failed.
        """
        queue = self._queues.get((frozenset(feeds), frozenset(fetches)))
        if queue is None:
            return self._run(feeds, fetches, timeout_ms)
        size = _rows(feeds)
        self._metrics.batch_size("input_batch_size", size)
        deadline_s = time.monotonic() + timeout_ms / 1000 if timeout_ms else None
        tasks = queue.schedule(dict(feeds), size, deadline_s)
        pieces = [task.result() for task in tasks]
        if len(pieces) == 1:
            return [pieces[0][name] for name in fetches]
        return [np.concatenate([piece[name] for piece in pieces]) for name in fetches]

    def close(self) -> None:
        """Take the queues off the scheduler; no request may be under way."""
        for queue in self._queues.values():
            self._scheduler.remove(queue)

    def _run_batch(self, batch: Batch, fetches: Sequence[str]) -> None:
        error: StatusError | None = None
        try:
            self._fill_outputs(batch, fetches)
        except StatusError as failure:
            error = failure
        except tf.errors.OpError as failure:
            error = StatusError(CODES[failure.error_code], failure.message)
        except Exception as failure:  # noqa: BLE001  a waiting request must always end
            error = StatusError(grpc.StatusCode.INTERNAL, f"The batch failed ({type(failure).__name__})")
        for task in batch.tasks:
            task.error = error
            task.done.set()

    def _fill_outputs(self, batch: Batch, fetches: Sequence[str]) -> None:
        now_s = time.monotonic()
        for task in batch.tasks:
            self._metrics.latency(":tensorflow:serving:batching_session:queuing_latency", now_s - task.enqueued_s)
        timeout_ms = _timeout_ms(batch.tasks, now_s)
        size = self._scheduler.parameters.padded_size(batch.size)
        self._metrics.batch_size("processed_batch_size", size)
        feeds = _merged(batch.tasks, size - batch.size, pad=self._scheduler.parameters.pad_variable_length_inputs)
        arrays = self._run(feeds, fetches, timeout_ms)
        for name, array in zip(fetches, arrays, strict=True):
            _split(name, array, batch, size)


def _rows(feeds: Mapping[str, Array]) -> int:
    """Give the rows that all inputs have."""
    if not feeds:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    sizes = set()
    for array in feeds.values():
        if array.ndim == 0:
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        sizes.add(array.shape[0])
    if len(sizes) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return int(sizes.pop())


def _timeout_ms(tasks: Sequence[Task], now_s: float) -> int:
    """Give the latest deadline of all tasks from now; 0: one has none.

    Raises:
        StatusError: all deadlines have passed.
    """
    deadlines = [task.deadline_s for task in tasks]
    if any(deadline is None for deadline in deadlines):
        return 0
    left_s = max(deadline for deadline in deadlines if deadline is not None) - now_s
    if left_s <= 0:
        raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
    return max(1, int(left_s * 1000))


def _merged(tasks: Sequence[Task], padding: int, *, pad: bool) -> dict[str, Array]:
    """Join the rows of all tasks, and fill up with the first row of the last one."""
    merged = {}
    for name in sorted(tasks[0].feeds):
        arrays = [task.feeds[name] for task in tasks]
        if pad:
            arrays = _padded(arrays)
        _check_same(name, arrays)
        if padding:
            row = arrays[-1][:1] if len(arrays[-1]) else np.zeros((1, *arrays[-1].shape[1:]), arrays[-1].dtype)
            arrays.append(np.repeat(row, padding, axis=0))
        merged[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return merged


def _check_same(name: str, arrays: Sequence[Array]) -> None:
    if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        raise failed_precondition(
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off."
            "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name"
            "have equal dimensions starting with the first dim."
        )
    if any(array.dtype != arrays[0].dtype for array in arrays):
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate tensors that have different data "
            "types.",
        )


def _padded(arrays: list[Array]) -> list[Array]:
    """Fill up the inner axes of each array to the longest, with its own first element."""
    if any(array.ndim != arrays[0].ndim or array.size == 0 for array in arrays):
        return arrays
    longest = np.max([array.shape[1:] for array in arrays], axis=0)
    padded = []
    for array in arrays:
        filled = np.full((len(array), *longest), array.reshape(-1)[0], array.dtype)
        filled[tuple(slice(size) for size in array.shape)] = array
        padded.append(filled)
    return padded


def _split(name: str, array: Array, batch: Batch, size: int) -> None:
    """Give each task its rows of one output."""
    if array.ndim == 0:
        raise failed_precondition("Batched output tensor has 0 dimensions")
    if array.shape[0] != size:
        raise failed_precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors"
        )
    start = 0
    for task in batch.tasks:
        task.outputs[name] = array[start : start + task.size]
        start += task.size
