"""Log events that a hostile or broken peer can cause without end: a few of each a minute, then only their number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

EACH_MINUTE = 20
MINUTE_S = 60.0


@dataclass
class _Minute:
    began_at: float
    seen: int = 0


class RecurringLog:
    """A logger whose lines are bounded for each event name.

    Args:
        each_minute: so many of one kind; None: EACH_MINUTE.
        clock: seconds, monotonic.
    """

    def __init__(self, each_minute: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_minute = each_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: dict[str, _Minute] = {}

    def info(self, event: str, **keys: Any) -> None:
        """Log what is no fault, unless there was enough of this kind."""
        if self._admit(event):
            structlog.get_logger().info(event, **keys)

    def warning(self, event: str, **keys: Any) -> None:
        """Log a warning, unless there were enough of this kind."""
        if self._admit(event):
            structlog.get_logger().warning(event, **keys)

    def error(self, event: str, **keys: Any) -> None:
        """Log an error with its place, unless there were enough of this kind."""
        if self._admit(event):
            structlog.get_logger().error(event, exc_info=True, **keys)

    def _admit(self, event: str) -> bool:
        now = self._clock()
        most = EACH_MINUTE if self._each_minute is None else self._each_minute
        with self._lock:
            minute = self._minutes.setdefault(event, _Minute(now))
            if now - minute.began_at >= MINUTE_S:
                withheld, self._minutes[event] = minute.seen - most, _Minute(now, 1)
                if withheld > 0:
                    structlog.get_logger().warning("log_lines_withheld", reason=event, count=withheld)
                return True
            minute.seen += 1
            return minute.seen <= most
