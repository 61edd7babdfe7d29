"""SIGTERM and SIGINT as something to wait for, safe however often they come.

`threading.Event.set` takes a lock that is not re-entrant: in a signal handler it deadlocks when the main thread is
interrupted inside `wait`, or when a second signal comes. Here the handler writes one byte into a pipe.

Python runs a handler in the main thread, between two of its instructions. A signal that comes just before the main
thread begins to wait, or that another thread is given, interrupts no wait: so every wait looks up now and then.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

LOOK_UP_S = 1.0  # the longest that a signal which interrupted nothing goes unnoticed


class StopSignal:
    """Set once and for all; waits and asks as `threading.Event` does."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    @classmethod
    def on_termination(cls) -> StopSignal:
        """Give one that SIGTERM and SIGINT set; call it in the main thread, before anything is started."""
        stop = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.set)
        return stop

    def set(self, *_: object) -> None:
        """Set it; may be called from a signal handler, also while another one runs."""
        with suppress(BlockingIOError):  # full: it was set 65,536 times
            os.write(self._write, b"\0")

    def is_set(self) -> bool:
        """Tell whether it was set."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for `timeout` seconds; tells whether it is set."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left_s = LOOK_UP_S if deadline is None else min(LOOK_UP_S, max(0.0, deadline - time.monotonic()))
            if select.select([self._read], [], [], left_s)[0]:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
