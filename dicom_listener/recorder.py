"""Group commit: the instances of all associations share ledger commits, and their answers wait.

Whoever comes first commits, in its own thread, what is waiting by then; who comes meanwhile waits for the next turn. A
lone association so never hands its rows to another thread and back, which costs more than the commit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from triage.errors import StoreError
from triage.ledger.intake import Intake, Quarantined, Received, Registered

BATCH_MAX = 256  # instances in one commit; more would only make the first of them wait


class _Waiting:
    """One row on its way, and what its association waits for; a bare lock, as a Future costs more than the row."""

    __slots__ = ("_error", "_result", "_turn", "is_settled", "item")

    def __init__(self, item: Received | Quarantined) -> None:
        self.item = item
        self.is_settled = False
        self._turn = threading.Lock()
        self._turn.acquire()
        self._result: Registered | None = None
        self._error: StoreError | None = None

    def settle(self, result: Registered | None, error: StoreError | None = None) -> None:
        """Note what became of it."""
        self._result, self._error = result, error
        self.is_settled = True

    def wake(self) -> None:
        """Let its association go on: to its answer, or to commit."""
        self._turn.release()

    def wait(self) -> None:
        """Wait to be woken."""
        self._turn.acquire()

    def outcome(self) -> Registered | None:
        """Give what became of it.

        Raises:
            StoreError: the ledger took no row.
        """
        if self._error is not None:
            raise self._error
        return self._result


class Recorder:
    """Commits as many rows at a time as are waiting.

    Args:
        intake: of a ledger that threads which take turns may share (`SharedLedger`).
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._lock = threading.Lock()  # of what is below; never held while the disk is waited for
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[_Waiting] = deque()
        self._someone_commits = False
        self._stopped = False

    def stop(self) -> None:
        """Wait until what is waiting has been recorded, and take no more."""
        with self._lock:
            self._stopped = True
            self._idle.wait_for(lambda: not self._someone_commits)

    def record(self, received: Received) -> Registered:
        """Wait until an instance, whose file is durable under its final name, is in the ledger.

        Raises:
            StoreError: the ledger took no row.
        """
        registered = self._committed(received)
        if registered is None:
            raise StoreError("An instance was recorded as something else.")
        return registered

    def quarantine(self, item: Quarantined) -> None:
        """Wait until quarantined data are in the ledger.

        Raises:
            StoreError: the ledger took no row.
        """
        self._committed(item)

    def _committed(self, item: Received | Quarantined) -> Registered | None:
        mine = _Waiting(item)
        with self._lock:
            if self._stopped:
                raise StoreError("The listener is ending: send it again.")
            self._waiting.append(mine)
            leads = not self._someone_commits
            self._someone_commits = True
        if not leads:
            mine.wait()
        if not mine.is_settled:  # it is first in the queue now
            self._commit_waiting(mine)
        return mine.outcome()

    def _commit_waiting(self, mine: _Waiting) -> None:
        """Commit what is waiting, wake who waited for it, and hand on to who came meanwhile."""
        with self._lock:
            batch = list(islice(self._waiting, BATCH_MAX))
        try:
            self._record(batch)
            self._quarantine(batch)
        finally:
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
                next_leader = self._waiting[0] if self._waiting else None
                self._someone_commits = next_leader is not None
                self._idle.notify_all()
            for waiting in batch:
                if waiting is not mine:
                    waiting.wake()
            if next_leader is not None:
                next_leader.wake()

    def _record(self, batch: Sequence[_Waiting]) -> None:
        received = [(waiting, waiting.item) for waiting in batch if isinstance(waiting.item, Received)]
        if not received:
            return
        try:
            results = self._intake.register([item for _, item in received], now=time.time())
        except Exception as error:  # noqa: BLE001 - whatever it is, every association that waits must be told
            for waiting, _ in received:
                waiting.settle(None, _as_store_error(error))
            return
        for (waiting, _), result in zip(received, results, strict=True):
            waiting.settle(result)

    def _quarantine(self, batch: Sequence[_Waiting]) -> None:
        for waiting in batch:
            if not isinstance(waiting.item, Quarantined):
                continue
            try:
                self._intake.quarantine(waiting.item)
            except Exception as error:  # noqa: BLE001 - as above
                waiting.settle(None, _as_store_error(error))
            else:
                waiting.settle(None)


def _as_store_error(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(f"The ledger could not be written: {type(error).__name__}.")
