"""What a check of the surroundings found, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How a check ended."""

    GOOD = "ok"
    DOUBTFUL = "look at it"  # works, but not as well as it should or not for long
    FAULT = "fault"  # a listener would not start, or lose images


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        what: the thing.
        grade: how it ended.
        found: what was seen, with measurements.
        mend: what to do; empty if nothing.
    """

    what: str
    grade: Grade
    found: str
    mend: str = ""
