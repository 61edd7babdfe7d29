"""Who looked at what a short while ago, so that the audit trail has one row for it; kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

SAME_LOOK_S = 300.0
MOST_LOOKS = 10_000  # remembered; then the oldest are noted again


class Looks:
    """Remembers who looked at what a short while ago."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._lock = threading.Lock()

    def is_new(self, look: tuple[str, ...], *, now: float) -> bool:
        """Remember a look; False if the same one was noted within `SAME_LOOK_S`."""
        with self._lock:
            before = self._seen.get(look)
            if before is not None and abs(now - before) < SAME_LOOK_S:  # requests overtake each other by milliseconds
                return False
            self._seen[look] = now
            self._seen.move_to_end(look)
            while len(self._seen) > MOST_LOOKS:
                self._seen.popitem(last=False)
            return True

    def forget(self, look: tuple[str, ...]) -> None:
        """Take a look back that could not be noted: the next one must be."""
        with self._lock:
            self._seen.pop(look, None)
