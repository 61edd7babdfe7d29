"""Group commit: the instances of all associations share ledger commits, and their answers wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from dicom_listener.instance_store import InstanceStore
from triage.errors import StoreError
from triage.ledger.intake import Intake, Quarantined, Received, Registered

BATCH_MAX = 256  # instances in one commit; more would only make the first of them wait


class _Outcome:
    """What one association waits for; a bare lock, as a Future costs more than the row."""

    __slots__ = ("_done", "_error", "_result")

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()
        self._result: Registered | None = None
        self._error: StoreError | None = None

    def end(self, result: Registered | None, error: StoreError | None = None) -> None:
        """Let the association go on."""
        self._result, self._error = result, error
        self._done.release()

    def wait(self) -> Registered | None:
        """Wait for the end, and give what became of it.

        Raises:
            StoreError: the ledger took no row.
        """
        with self._done:
            if self._error is not None:
                raise self._error
            return self._result


_Item = tuple[Received | Quarantined, _Outcome]


class Recorder:
    """One thread, with the one connection that writes, commits as many rows at a time as are waiting."""

    def __init__(self, intake: Intake, store: InstanceStore) -> None:
        self._intake = intake
        self._store = store
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin to record."""
        self._thread.start()

    def stop(self) -> None:
        """Record what is waiting, then end."""
        self._waiting.put(None)
        self._thread.join()

    def record(self, received: Received) -> Registered:
        """Wait until an instance whose file has its final name is durable and in the ledger.

        The name is synced while the row is committed, as each costs a wait for the disk. A power cut between the two
        leaves a row without file; the file lies synced in incoming/ then, and the next start puts it in its place.

        Raises:
            StoreError: the ledger took no row.
            OSError: the file's name could not be made durable.
        """
        outcome = _Outcome()
        self._waiting.put((received, outcome))
        self._store.sync_names([received.instance.path])
        registered = outcome.wait()
        if registered is None:
            raise StoreError("An instance was recorded as something else.")
        return registered

    def quarantine(self, item: Quarantined) -> None:
        """Wait until quarantined data are in the ledger.

        Raises:
            StoreError: the ledger took no row.
        """
        outcome = _Outcome()
        self._waiting.put((item, outcome))
        outcome.wait()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._record([(item, outcome) for item, outcome in batch if isinstance(item, Received)])
            self._quarantine([(item, outcome) for item, outcome in batch if isinstance(item, Quarantined)])

    def _next_batch(self) -> list[_Item] | None:
        first = self._waiting.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < BATCH_MAX:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._waiting.put(None)  # stop after this batch
                break
            batch.append(item)
        return batch

    def _record(self, batch: Sequence[tuple[Received, _Outcome]]) -> None:
        if not batch:
            return
        try:
            results = self._intake.register([item for item, _ in batch], now=time.time())
        except Exception as error:  # noqa: BLE001 - whatever it is, every association that waits must be told
            for _, outcome in batch:
                outcome.end(None, _as_store_error(error))
            return
        for (_, outcome), result in zip(batch, results, strict=True):
            outcome.end(result)

    def _quarantine(self, batch: Sequence[tuple[Quarantined, _Outcome]]) -> None:
        for item, outcome in batch:
            try:
                self._intake.quarantine(item)
            except Exception as error:  # noqa: BLE001 - as above
                outcome.end(None, _as_store_error(error))
            else:
                outcome.end(None)


def _as_store_error(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(f"The ledger could not be written: {type(error).__name__}.")
