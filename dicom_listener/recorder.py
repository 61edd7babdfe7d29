"""Group commit: the instances of all associations share folder syncs and ledger commits, and their answers wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from dicom_listener.instance_store import InstanceStore
from triage.errors import StoreError
from triage.ledger.intake import Intake, Received, Registered

BATCH_MAX = 256  # instances in one commit; more would only make the first of them wait

_Item = tuple[Received, "Future[Registered]"]


class Recorder:
    """One thread that makes names durable and rows committed, as many at a time as are waiting."""

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

        Raises:
            StoreError: the ledger took no row.
            OSError: the file's name could not be made durable.
        """
        future: Future[Registered] = Future()
        self._waiting.put((received, future))
        return future.result()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._record(batch)

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

    def _record(self, batch: Sequence[_Item]) -> None:
        received = [item for item, _ in batch]
        try:
            self._store.sync_names(item.instance.path for item in received)
            results = self._intake.register(received, now=time.time())
        except Exception as error:  # noqa: BLE001 - whatever it is, every association that waits must be told
            for _, future in batch:
                future.set_exception(error if isinstance(error, (OSError, StoreError)) else StoreError(repr(error)))
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
