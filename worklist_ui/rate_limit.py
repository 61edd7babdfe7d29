"""So many tries from one address in a while, and no more; kept in memory."""

from __future__ import annotations

import threading
from collections import deque

MOST_ADDRESSES = 10_000  # a scan from many addresses must not fill the memory: the oldest are forgotten


class RateLimit:
    """Allow `tries` in `per_s` seconds to each address."""

    def __init__(self, tries: int, *, per_s: float) -> None:
        self._tries = tries
        self._per_s = per_s
        self._seen: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def allows(self, address: str, *, now: float) -> bool:
        """Count one try; False if there were too many."""
        with self._lock:
            times = self._seen.pop(address, None) or deque()
            self._seen[address] = times  # to the end: the first key is the address unseen for longest
            while times and abs(now - times[0]) >= self._per_s:  # also after the clock was set back
                times.popleft()
            if len(self._seen) > MOST_ADDRESSES:
                del self._seen[next(iter(self._seen))]
            if len(times) >= self._tries:
                return False
            times.append(now)
            return True
