"""Calls timed in turns, so that all of them see the same load of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

PAUSE_S = 0.1  # threads look for work for a while after a run: the next one shall have the cores alone


def took_s(call: Callable[[], Any]) -> float:
    """Give the seconds that a call takes."""
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def in_turns(timed: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Run several timed calls in turns; gives the seconds of each, without the first turn, which warms up."""
    seconds: list[list[float]] = [[] for _ in timed]
    for turn in range(repeats + 1):
        for kept, call in zip(seconds, timed, strict=True):
            time.sleep(PAUSE_S)
            call_s = call()
            if turn:
                kept.append(call_s)
    return seconds
