"""The order of the reading list: one pure function, so that who comes first can be read and proved.

Flagged studies come first, then STAT requests, then arrival. Nothing is removed, the unflagged keep the order they
had, and none waits without bound: once an unflagged study has waited longer than the cap, it takes every second
place among the flagged, the longest wait first. The first place stays with a flag.

While the model is away nothing new can be flagged, so new studies stand in order of arrival by the same rule; a flag
that was raised before stays raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest


@dataclass(frozen=True)
class Rank:
    """What the place of one open study depends on."""

    study_id: int
    flagged: bool
    stat: bool
    arrived_at: float  # the first image, seconds since the epoch


def reading_order(ranks: Iterable[Rank], *, now: float, overtaking_cap_s: float | None) -> list[int]:
    """Give the study ids of open studies in the order in which they should be read.

    Args:
        ranks: studies that nobody has read yet, in any order.
        now: seconds since the epoch.
        overtaking_cap_s: an unflagged study that arrived longer ago is no longer overtaken by every flag;
            None: flags always come first.
    """
    by_need = sorted(ranks, key=_need)
    flagged = [rank.study_id for rank in by_need if rank.flagged]
    unflagged = [rank for rank in by_need if not rank.flagged]
    overdue = _overdue(unflagged, now=now, overtaking_cap_s=overtaking_cap_s)[: len(flagged)]
    let_in = frozenset(overdue)
    rest = (rank.study_id for rank in unflagged if rank.study_id not in let_in)
    return [*_alternating(flagged, overdue), *rest]


def _need(rank: Rank) -> tuple[bool, bool, float, int]:
    return not rank.flagged, not rank.stat, rank.arrived_at, rank.study_id


def _overdue(unflagged: Sequence[Rank], *, now: float, overtaking_cap_s: float | None) -> list[int]:
    if overtaking_cap_s is None:
        return []
    return [rank.study_id for rank in unflagged if now - rank.arrived_at > overtaking_cap_s]


def _alternating(flagged: Sequence[int], overdue: Sequence[int]) -> list[int]:
    pairs = chain.from_iterable(zip_longest(flagged, overdue))
    return [study_id for study_id in pairs if study_id is not None]
