"""When a study is complete: by evidence where there is any, by silence where there is none.

`judge` is a function of what has arrived and of the time; `dicom_listener.completer` applies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_listener.coverage import FRAMES_OF_A_HEAD, SeriesCoverage, Wholeness, coverage_of, growing_series
from triage.study import Instance


@dataclass(frozen=True)
class CompletionRules:
    """How long to wait for what; all in seconds, but the coverage.

    Attributes:
        settle_s: after the last association's release, for one that follows at once.
        moved_on_s: without a new image of a study whose association goes on with other studies.
        quiet_period_s: without a new image, where positions and numbers give no evidence.
        cap_s: without a new image, where the evidence says that something is missing; then it goes on as partial.
        head_coverage_mm: along the normal; less is no whole head.
    """

    settle_s: float
    moved_on_s: float
    quiet_period_s: float
    cap_s: float
    head_coverage_mm: float


@dataclass(frozen=True)
class Arrival:
    """How the images of one study came.

    Attributes:
        last_image_at: seconds since the epoch.
        open_associations: that brought images of it and may bring more.
        released_at: when the last of its associations ended; None while one is open.
        aborted: that association was aborted or broke off: its sender will try again.
        moved_on: each of these associations has gone on to another study.
        longest_gap_s: between associations of one study, as this sender has shown.
        longest_return_s: until an association came back to a study that it had left, likewise.
        calling_ae_title: of the sender that brought its last images.
    """

    last_image_at: float
    open_associations: int = 0
    released_at: float | None = None
    aborted: bool = False
    moved_on: bool = False
    longest_gap_s: float = 0.0
    longest_return_s: float = 0.0
    calling_ae_title: str = ""


@dataclass(frozen=True)
class Complete:
    """Queue it: the evidence, and whether something is missing as far as is known."""

    completed_by: str  # "geometry", "counts", "silence" or "cap"
    partial: bool = False


@dataclass(frozen=True)
class Wait:
    """Look again then, or when something happens."""

    until: float  # seconds since the epoch


def earliest(arrival: Arrival, rules: CompletionRules) -> float:
    """Give the time before which no images of a study can make it complete: it spares looks at them."""
    if arrival.open_associations:
        return _left_at(arrival, rules) if arrival.moved_on else arrival.last_image_at + rules.quiet_period_s
    silent_at = arrival.last_image_at + min(rules.quiet_period_s, rules.cap_s)
    if arrival.released_at is None or arrival.aborted:
        return silent_at
    return min(_settled_at(arrival, rules), silent_at)


def judge(instances: Sequence[Instance], arrival: Arrival, rules: CompletionRules, *, now: float) -> Complete | Wait:
    """Say whether a study is complete.

    Args:
        instances: all that have arrived.
        arrival: how they came.
        rules: how long to wait.
        now: seconds since the epoch.
    """
    series = [coverage_of(slices) for slices in growing_series(instances).values()]
    evidence = _evidence(series, rules)
    quiet_at = arrival.last_image_at + rules.quiet_period_s
    if evidence and not arrival.open_associations and arrival.released_at is not None and not arrival.aborted:
        settled_at = _settled_at(arrival, rules)
        return Complete(evidence) if now >= settled_at else Wait(settled_at)
    if evidence and arrival.moved_on:
        left_at = _left_at(arrival, rules)
        return Complete(evidence) if now >= left_at else Wait(left_at)
    if _something_is_missing(series, arrival, evidence):
        cap_at = arrival.last_image_at + rules.cap_s
        return Complete("cap", partial=True) if now >= cap_at else Wait(cap_at)
    return Complete("silence") if now >= quiet_at else Wait(quiet_at)


def _evidence(series: Sequence[SeriesCoverage], rules: CompletionRules) -> str | None:
    """Name the evidence that every series is whole and one covers a head; None: there is none."""
    kinds = {item.wholeness for item in series}
    if not kinds <= {Wholeness.WHOLE, Wholeness.NUMBERED} or not any(_covers_head(item, rules) for item in series):
        return None
    return "geometry" if kinds == {Wholeness.WHOLE} else "counts"


def _covers_head(item: SeriesCoverage, rules: CompletionRules) -> bool:
    if item.extent_mm:
        return item.extent_mm >= rules.head_coverage_mm
    return item.wholeness is Wholeness.NUMBERED and item.frames >= FRAMES_OF_A_HEAD


def _settled_at(arrival: Arrival, rules: CompletionRules) -> float:
    """Give when an association that follows at once would have come; a sender that splits studies gets longer."""
    released_at = arrival.last_image_at if arrival.released_at is None else arrival.released_at
    settle_s = min(max(rules.settle_s, 1.5 * arrival.longest_gap_s), rules.quiet_period_s)
    return max(released_at, arrival.last_image_at) + settle_s


def _left_at(arrival: Arrival, rules: CompletionRules) -> float:
    """Give when an association that went on to other studies would have come back; one that has done so gets longer."""
    wait_s = max(rules.moved_on_s, 1.5 * arrival.longest_return_s)
    return arrival.last_image_at + min(wait_s, rules.quiet_period_s)


def _something_is_missing(series: Sequence[SeriesCoverage], arrival: Arrival, evidence: str | None) -> bool:
    if any(item.wholeness is Wholeness.HOLES for item in series):
        return True
    # an open association may rest on its study for longer than a pause between images; a whole one needs no more
    rests = arrival.open_associations > 0 and not arrival.moved_on
    return evidence is None and bool(series) and (arrival.aborted or rests)
