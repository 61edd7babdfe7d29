"""The list as this process knows it, kept up with the ledger change by change, and a wake-up for whoever waits.

Nothing is computed a second time: one thread asks the ledger for its change counter five times a second, and all open
streams share the snapshot that it makes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from triage.errors import StoreError
from triage.ledger.reading import Entry, Reading
from triage.ledger.studies import Studies
from triage.settings import WorklistSettings
from triage.study import StudyState

POLL_S = 0.2  # a change reaches the open lists within this and a page's rendering
MOST_ROWS_KEPT = 20_000  # drawn rows, about 3 kB each
TICK_S = 15.0  # without changes too, as the order depends on how long studies wait
log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True)
class Away:
    """The model, or every worker, is away: why, and how many studies wait for it."""

    cause: str
    waiting: int


@dataclass(frozen=True)
class Snapshot:
    """All studies at one moment; `version` counts up with everything that can change a page."""

    version: int
    change: int
    at: float
    entries: Mapping[int, Entry]
    away: Away | None
    rows: dict[Any, str] = field(default_factory=dict, compare=False, repr=False)  # drawn ones, shared by all snapshots
    _kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    _making: threading.RLock = field(default_factory=threading.RLock, compare=False, repr=False)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Give what pages derive from this snapshot, made by the first that asks: the others wait and share it."""
        if key not in self._kept:
            with self._making:
                if key not in self._kept:
                    self._kept[key] = make()
        made: T = self._kept[key]
        return made


class LiveList:
    """Keeps the newest snapshot."""

    def __init__(
        self, reading: Reading, studies: Studies, settings: WorklistSettings, clock: Callable[[], float]
    ) -> None:
        self._reading = reading
        self._studies = studies
        self._settings = settings
        self._clock = clock
        self._changed = threading.Condition()
        self._refreshing = threading.Lock()
        self._newest = Snapshot(version=0, change=0, at=0.0, entries={}, away=None)
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        self.streams = 0

    def snapshot(self) -> Snapshot:
        """Give the list as the ledger has it now."""
        with self._refreshing:
            newer = self._refreshed(self._newest)
            if newer is self._newest:
                return newer
            self._newest = newer
        with self._changed:
            self._changed.notify_all()
        return newer

    def wait(self, after_version: int, *, timeout_s: float) -> Snapshot | None:
        """Wait for a snapshot newer than `after_version`; None if none came in time, or the process stops."""
        self._watch()
        with self._changed:
            self._changed.wait_for(
                lambda: self._newest.version > after_version or self._closing.is_set(), timeout=timeout_s
            )
        newest = self._newest
        return newest if newest.version > after_version and not self.closing else None

    @property
    def closing(self) -> bool:
        """Whether the process stops: open streams end."""
        return self._closing.is_set()

    def close(self) -> None:
        """End the watching, and every wait; safe to call from a signal handler."""
        self._closing.set()

    def enter_stream(self, most: int) -> bool:
        """Count one more open stream; False if there are `most` already."""
        with self._changed:
            if self.streams >= most or self.closing:
                return False
            self.streams += 1
            return True

    def leave_stream(self) -> None:
        """Count one open stream less."""
        with self._changed:
            self.streams -= 1

    def _watch(self) -> None:
        with self._changed:
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(target=self._run, name="live-list", daemon=True)
                self._watcher.start()

    def _run(self) -> None:
        while not self._closing.wait(POLL_S):
            try:
                now = self._clock()
                self._reading.release_lapsed(expires_before=now - self._settings.claim_minutes * 60, now=now)
                self.snapshot()
            except StoreError as error:  # a ledger that is locked or full for a while: look again
                log.warning("live_list_delayed", error_type=type(error).__name__)
        with self._changed:
            self._changed.notify_all()

    def _refreshed(self, old: Snapshot) -> Snapshot:
        now = self._clock()
        change, count = self._reading.last_change(), self._reading.study_count()
        entries = self._entries(old, change, count)
        away = self._away(entries, now) if entries is not old.entries or now - old.at >= 1.0 else old.away
        if old.version and entries is old.entries and away == old.away and 0 <= now - old.at < TICK_S:
            return old
        rows = old.rows if len(old.rows) < MOST_ROWS_KEPT else {}
        return Snapshot(version=old.version + 1, change=change, at=now, entries=entries, away=away, rows=rows)

    def _entries(self, old: Snapshot, change: int, count: int) -> Mapping[int, Entry]:
        if change == old.change and count == len(old.entries):
            return old.entries
        entries = dict(old.entries)
        entries.update((entry.study.study_id, entry) for entry in self._reading.entries(since=old.change))
        if len(entries) != count or change < old.change:  # studies were deleted
            entries = {entry.study.study_id: entry for entry in self._reading.entries()}
        return entries

    def _away(self, entries: Mapping[int, Entry], now: float) -> Away | None:
        waiting = [entry for entry in entries.values() if entry.study.state in (StudyState.QUEUED, StudyState.RUNNING)]
        patience_s = self._settings.model_away_after_s
        alive = [worker for worker in self._studies.workers() if now - worker.seen_at <= patience_s]
        if alive and not any(worker.model_available for worker in alive):
            return Away("The model does not answer.", len(waiting))
        if not alive and waiting and now - min(_queued_at(entry) for entry in waiting) > patience_s:
            return Away("No worker runs.", len(waiting))
        return None


def _queued_at(entry: Entry) -> float:
    return entry.study.queued_at or entry.study.last_image_at
