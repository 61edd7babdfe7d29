"""Gathers tasks into batches and hands these to threads that all queues share.

Reference:
    tensorflow/core/kernels/batching_util/shared_batch_scheduler.h.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from inference.model_server.batching_parameters import BatchingParameters
from inference.model_server.session_run import Array
from inference.model_server.statuses import StatusError, invalid_argument


@dataclass
class Task:
    """One request's rows, waiting for their outputs.

    Attributes:
        feeds: array by tensor name; all have `size` rows.
        size: rows.
        deadline_s: on the monotonic clock; None: no deadline.
    """

    feeds: dict[str, Array]
    size: int
    deadline_s: float | None
    enqueued_s: float = field(default_factory=time.monotonic)
    outputs: dict[str, Array] = field(default_factory=dict)
    error: StatusError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def result(self) -> dict[str, Array]:
        """Wait for the outputs, by tensor name.

        Raises:
            StatusError: the batch failed.
        """
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.outputs


@dataclass
class Batch:
    """Tasks that are run together."""

    tasks: list[Task] = field(default_factory=list)
    size: int = 0
    opened_s: float = field(default_factory=time.monotonic)
    closed: bool = False


class BatchQueue:
    """Batches of one signature; made by `BatchScheduler.queue`."""

    def __init__(
        self, parameters: BatchingParameters, changed: threading.Condition, run: Callable[[Batch], None]
    ) -> None:
        self._parameters = parameters
        self._changed = changed
        self.run = run
        self._batches: deque[Batch] = deque()

    def schedule(self, feeds: dict[str, Array], size: int, deadline_s: float | None) -> list[Task]:
        """Put a request's rows into batches; gives its tasks, in order of the rows.

        Raises:
            StatusError: the request is larger than a batch may be, or too many batches wait.
        """
        limits = self._parameters
        if size > limits.max_batch_size:
            raise invalid_argument(f"Task size {size} is larger than maximum input batch size {limits.max_batch_size}")
        with self._changed:
            sizes = self._piece_sizes(size)
            self._check_room(sizes)
            tasks, start = [], 0
            for piece in sizes:
                rows = {name: array[start : start + piece] for name, array in feeds.items()}
                tasks.append(Task(rows if len(sizes) > 1 else feeds, piece, deadline_s))
                self._add(tasks[-1])
                start += piece
            self._changed.notify()
        return tasks

    def ready_at_s(self) -> float | None:
        """Tell when the first batch may run, on the monotonic clock; None: there is none."""
        if not self._batches:
            return None
        first = self._batches[0]
        full = first.closed or first.size >= self._parameters.max_execution_batch_size
        return 0.0 if full else first.opened_s + self._parameters.batch_timeout_s

    def take(self) -> Batch:
        """Take the first batch off the queue."""
        return self._batches.popleft()

    def _room(self) -> int:
        """Give the rows that still fit into the open batch; 0 where there is none."""
        if not self._batches or self._batches[-1].closed:
            return 0
        return max(0, self._parameters.max_execution_batch_size - self._batches[-1].size)

    def _piece_sizes(self, size: int) -> list[int]:
        if not self._parameters.enable_large_batch_splitting or size <= self._room():
            return [size]
        most = self._parameters.max_execution_batch_size
        pieces = [min(size, self._room())] if self._room() else []
        left = size - sum(pieces)
        return [*pieces, *[most] * (left // most), *([left % most] if left % most or not size else [])]

    def _check_room(self, sizes: list[int]) -> None:
        room, new = self._room(), 0
        for size in sizes:
            if size > room or not self._batches:
                new, room = new + 1, self._parameters.max_execution_batch_size
            room -= size
        if len(self._batches) + new > self._parameters.max_enqueued_batches:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(self._batches)} batches enqueued and max_enqueued_batches is "
                f"{self._parameters.max_enqueued_batches}",
            )

    def _add(self, task: Task) -> None:
        if not self._batches or self._batches[-1].closed or task.size > self._room():
            if self._batches:
                self._batches[-1].closed = True
            self._batches.append(Batch())
        batch = self._batches[-1]
        batch.tasks.append(task)
        batch.size += task.size


class BatchScheduler:
    """Runs the batches of all queues on a fixed number of threads, queue after queue in turns."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self.parameters = parameters
        self._changed = threading.Condition()
        self._queues: deque[BatchQueue] = deque()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run_batches, name=f"batch-{number}", daemon=True)
            for number in range(parameters.num_batch_threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, each after the batch in hand; what still waits is run by nobody."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def queue(self, run: Callable[[Batch], None]) -> BatchQueue:
        """Add a queue whose batches are handed to `run`, which ends each of their tasks."""
        queue = BatchQueue(self.parameters, self._changed, run)
        with self._changed:
            self._queues.append(queue)
        return queue

    def remove(self, queue: BatchQueue) -> None:
        """Take a queue off the turns; it must be empty."""
        with self._changed:
            self._queues.remove(queue)

    def _run_batches(self) -> None:
        while True:
            taken = self._next_batch()
            if taken is None:
                return
            queue, batch = taken
            queue.run(batch)

    def _next_batch(self) -> tuple[BatchQueue, Batch] | None:
        """Wait for a batch that may run; None: the scheduler stops."""
        with self._changed:
            while not self._stopping:
                now_s = time.monotonic()
                soonest_s = None
                for _ in range(len(self._queues)):
                    self._queues.rotate(-1)
                    ready_s = self._queues[0].ready_at_s()
                    if ready_s is not None and ready_s <= now_s:
                        return self._queues[0], self._queues[0].take()
                    if ready_s is not None:
                        soonest_s = ready_s if soonest_s is None else min(soonest_s, ready_s)
                self._changed.wait(None if soonest_s is None else max(0.0, soonest_s - now_s))
        return None
