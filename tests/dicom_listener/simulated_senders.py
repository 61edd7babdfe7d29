"""A simulator of senders: schedules of associations and images, played against arrivals and judgement without a clock.

`python -m tests.dicom_listener.simulated_senders --schedules 10000` prints how often a study was complete too early,
and how long after its last image it was queued.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from dicom_listener.arrivals import Arrivals
from dicom_listener.completion import Complete, CompletionRules, earliest, judge
from triage.study import Instance

RULES = CompletionRules(settle_s=1.0, moved_on_s=5.0, quiet_period_s=20.0, cap_s=60.0, head_coverage_mm=100.0)
CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
WAYS = ("one study", "one after another", "in turns", "series by series", "side by side")
START_S = 1000.0


def slices(
    count: int, gap_mm: float = 5.0, *, series: str = "1.2.9", first_number: int = 1, step: int = 1, study: str = "1.2"
) -> list[Instance]:
    """An axial series from the neck up, all received at 100 s."""
    return [
        Instance(
            sop_instance_uid=f"{series}.{index}",
            series_instance_uid=series,
            study_instance_uid=study,
            sop_class_uid=CT,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=Path("x"),
            size_bytes=1,
            blake3="",
            received_at=100.0,
            modality="CT",
            image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
            instance_number=first_number + step * index,
            image_position_mm=(-125.0, -125.0, gap_mm * index),
            image_orientation=AXIAL,
        )
        for index in range(count)
    ]


@dataclass(frozen=True)
class Event:
    """What a sender does at a time: opens or ends an association, or sends an image over it."""

    at: float
    association: int
    image: Instance | None = None
    ends: bool = False
    aborted: bool = False


@dataclass
class Outcome:
    """What became of a schedule: studies queued before their last image, waits after it, and studies left behind."""

    early: list[str] = field(default_factory=list)
    by_evidence_s: list[float] = field(default_factory=list)  # waits of studies that positions or numbers speak for
    otherwise_s: list[float] = field(default_factory=list)  # of those that silence or the cap had to end
    never: int = 0


def schedule(seed: int, *, way: str | None = None) -> list[Event]:
    """Draw what one sender does.

    Shuffled, split over associations, interleaved, paused, truncated, cut off and sent again, thin with thick, scout
    first; several studies one after another, in turns, series by series and side by side.
    """
    draw = random.Random(seed)
    chosen = way or draw.choice(("one study", "one study", *WAYS))
    if chosen == "one study":
        events = _one_study(draw)
    else:
        studies = [_images(draw, f"1.2.{number}") for number in range(draw.randint(2, 5))]
        events = _several(draw, chosen, studies)
    return sorted(events, key=lambda event: event.at)


def _images(draw: random.Random, study: str) -> list[Instance]:
    """Give the images of one study in the order that they are sent in."""
    images = slices(draw.randint(24, 40), series=f"{study}.2", study=study)
    if draw.random() < 0.4:
        images += slices(draw.randint(130, 180), 1.0, series=f"{study}.3", study=study)
    if draw.random() < 0.15:  # truncated: a slice, or the end, was never sent
        del images[draw.randrange(len(images)) : len(images) if draw.random() < 0.3 else None]
        images = images or slices(24, series=f"{study}.2", study=study)
    if draw.random() < 0.5:
        scout = slices(1, series=f"{study}.1", study=study)[0]
        images = [replace(scout, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), *images]
    order = draw.choice(["as scanned", "descending", "shuffled", "interleaved"])
    if order == "descending":
        images.reverse()
    elif order == "shuffled":
        draw.shuffle(images)
    elif order == "interleaved":
        images = images[::2] + images[1::2]
    return images


def _one_study(draw: random.Random) -> list[Event]:
    images = _images(draw, "1.2.0")
    parts = min(draw.randint(1, 5), len(images))
    if draw.random() < 0.5:
        shares = [images[start::parts] for start in range(parts)]
    else:
        cuts = [0, *sorted(draw.sample(range(1, len(images)), parts - 1)), len(images)]
        shares = [images[a:b] for a, b in pairwise(cuts)]
    long_pause_s = draw.uniform(0, 0.9 * RULES.quiet_period_s) if draw.random() < 0.3 else 0.0
    between_s = draw.uniform(0.0, 0.05)
    if draw.random() < 0.2:  # cut off in the middle, and sent again from the start after a while
        shares = [images[: draw.randint(1, len(images))], images]
        pauses = [0.0, draw.uniform(0.0, 0.8 * RULES.quiet_period_s)]
        return _associations(shares, pauses, between_s, long_pause_s, first_is_aborted=True)
    pauses = [draw.uniform(0.0, 0.9 * RULES.settle_s) for _ in shares]
    return _associations(shares, pauses, between_s, long_pause_s, opened_at_once=draw.random() < 0.3)


def _associations(
    shares: Sequence[Sequence[Instance]],
    pauses_s: Sequence[float],
    between_s: float,
    long_pause_s: float,
    *,
    first_is_aborted: bool = False,
    opened_at_once: bool = False,
) -> list[Event]:
    """Send each share over an association of its own, one after another; the long pause is within the last."""
    events, now = [], START_S
    for number, (share, pause_s) in enumerate(zip(shares, pauses_s, strict=True)):
        now += pause_s
        events.append(Event(START_S if opened_at_once else now, number))
        for index, image in enumerate(share):
            now += between_s + (long_pause_s if share is shares[-1] and index == len(share) // 2 else 0.0)
            events.append(Event(now, number, image))
        events.append(Event(now, number, ends=True, aborted=first_is_aborted and number == 0))
    return events


def _several(draw: random.Random, way: str, studies: Sequence[Sequence[Instance]]) -> list[Event]:
    between_s = draw.uniform(0.0, 0.02)
    if way == "side by side":
        events = []
        for number, images in enumerate(studies):
            start = START_S + draw.uniform(0.0, 3.0)
            sent = [Event(start + between_s * index, number, image) for index, image in enumerate(images)]
            events += [Event(START_S if draw.random() < 0.5 else start, number), *sent,
                       Event(sent[-1].at, number, ends=True)]  # fmt: skip
        return events
    if way == "one after another":
        images = [image for study in studies for image in study]
    elif way == "in turns":
        images = _in_turns(studies)
    else:  # series by series: away from a study for as long as one series of each other takes
        images = [image for block in _by_series(studies) for image in block]
        longest = max((sum(map(len, blocks)) for blocks in pairwise(_by_series(studies))), default=1)
        between_s = min(between_s, 0.9 * RULES.moved_on_s / (longest * len(studies)))
    sent = [Event(START_S + between_s * index, 0, image) for index, image in enumerate(images)]
    stays_open_s = draw.uniform(0.0, 60.0)  # idle, then released
    return [Event(START_S, 0), *sent, Event(sent[-1].at + stays_open_s, 0, ends=True)]


def _in_turns(studies: Sequence[Sequence[Instance]]) -> list[Instance]:
    longest = max(map(len, studies))
    return [study[index] for index in range(longest) for study in studies if index < len(study)]


def _by_series(studies: Sequence[Sequence[Instance]]) -> list[list[Instance]]:
    blocks: dict[tuple[int, int], list[Instance]] = defaultdict(list)
    for number, study in enumerate(studies):
        series = list(dict.fromkeys(image.series_instance_uid for image in study))
        for image in study:
            blocks[series.index(image.series_instance_uid), number].append(image)
    return [blocks[key] for key in sorted(blocks)]


class _Player:
    """Judges as the completer does: when something happened to a study, or its time has come."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.arrivals = Arrivals(gap_max_s=RULES.quiet_period_s)
        self.present: dict[str, dict[str, Instance]] = defaultdict(dict)
        self.left: dict[str, int] = defaultdict(int)
        self.last_at: dict[str, float] = {}
        self.outcome = Outcome()
        for event in events:
            if event.image is not None:
                self.left[event.image.study_instance_uid] += 1

    def happen(self, event: Event) -> None:
        if event.image is not None:
            uid = event.image.study_instance_uid
            self.arrivals.image(uid, association=event.association, now=event.at)
            self.present[uid][event.image.sop_instance_uid] = event.image
            self.left[uid] -= 1
            self.last_at[uid] = event.at
        elif event.ends:
            self.arrivals.association_ended(event.association, aborted=event.aborted, now=event.at)
        else:
            self.arrivals.association_opened(event.association, calling_ae_title="PACS")

    def pass_time(self, now: float, until: float) -> None:
        """Look at each study whenever it could be complete before `until`."""
        while (due := self._look(now)) < until:
            now = due

    def _look(self, now: float) -> float:
        due = float("inf")
        for uid in self.arrivals.growing():
            arrival = self.arrivals.growing()[uid]  # what was learnt of the sender a moment ago counts
            at = max(now, earliest(arrival, RULES))
            if at > now:
                due = min(due, at)
                continue
            verdict = judge(list(self.present[uid].values()), arrival, RULES, now=now)
            if not isinstance(verdict, Complete):
                due = min(due, max(verdict.until, now + 1e-6))
                continue
            self.arrivals.gone_on(uid, arrival)
            if self.left[uid]:
                self.outcome.early.append(uid)
            else:
                is_evidence = verdict.completed_by in ("geometry", "counts")
                waits = self.outcome.by_evidence_s if is_evidence else self.outcome.otherwise_s
                waits.append(now - self.last_at[uid])
        return due


def play(events: Sequence[Event]) -> Outcome:
    """Play a schedule, and on until every study is queued."""
    player = _Player(events)
    for event, following in pairwise([*events, Event(events[-1].at + 10 * RULES.cap_s, 0)]):
        player.happen(event)
        if following.at > event.at:
            player.pass_time(event.at, following.at)
    player.outcome.never = len(player.arrivals.growing())
    return player.outcome


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def _report(name: str, outcomes: Sequence[Outcome]) -> str:
    evidence = [wait for outcome in outcomes for wait in outcome.by_evidence_s]
    otherwise = [wait for outcome in outcomes for wait in outcome.otherwise_s]
    early, never = sum(len(outcome.early) for outcome in outcomes), sum(outcome.never for outcome in outcomes)
    return (
        f"{name:18} {len(outcomes):6} schedules: {early} too early, {never} never; by evidence {_spread(evidence)}; "
        f"otherwise {_spread(otherwise)}"
    )


def _spread(waits: Sequence[float]) -> str:
    return f"{len(waits)} studies, median {_percentile(waits, 0.5):.1f} s, 99 % {_percentile(waits, 0.99):.1f} s"


def _played(count: int, way: str) -> Iterator[Outcome]:
    for seed in range(count):
        yield play(schedule(seed, way=way))


def main(argv: Sequence[str] | None = None) -> int:
    """Play and report; 1 if a study was complete too early, or never."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    schedules = parser.parse_args(argv).schedules
    everything = []
    for way in WAYS:
        outcomes = list(_played(schedules // len(WAYS), way))
        print(_report(way, outcomes), flush=True)
        everything += outcomes
    print(_report("all", everything))
    return int(any(outcome.early or outcome.never for outcome in everything))


if __name__ == "__main__":
    sys.exit(main())
