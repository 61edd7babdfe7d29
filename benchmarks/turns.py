"""Calls timed in turns, so that all of them see the same load of the machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PAUSE_S = 0.1  # threads look for work for a while after a run: the next one shall have the cores alone


@dataclass(frozen=True)
class Median:
    """The median of a sample and its interval of 95 % confidence."""

    value: float
    low: float
    high: float

    def text(self, form: str) -> str:
        """Write it, e.g. "1.05 (1.01 to 1.08)"."""
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def median(values: Sequence[float]) -> Median:
    """Give the median, its interval by the ranks that enclose it in 95 % of samples (normal approximation)."""
    ranked = sorted(values)
    reach = 0.98 * math.sqrt(len(ranked))
    low = max(0, math.floor(len(ranked) / 2 - reach))
    high = min(len(ranked) - 1, math.ceil(len(ranked) / 2 + reach) - 1)
    return Median(statistics.median(ranked), ranked[low], ranked[high])


def took_s(call: Callable[[], Any]) -> float:
    """Give the seconds that a call takes."""
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def in_turns(timed: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Run several timed calls in turns, every second turn backwards, so that none always follows another.

    Gives what each call gave, turn by turn, without the first turn, which warms up.
    """
    given: list[list[float]] = [[] for _ in timed]
    places = list(range(len(timed)))
    for turn in range(repeats + 1):
        for place in places if turn % 2 else reversed(places):
            time.sleep(PAUSE_S)
            value = timed[place]()
            if turn:
                given[place].append(value)
    return given
