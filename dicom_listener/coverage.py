"""What slice positions and numbers say of a CT series: whole so far, with holes, or nothing either way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from statistics import median

from triage.study import Instance

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
SAME_POSITION_MM = 0.05  # repeated positions (perfusion, two reconstructions) count once
HOLE_RATIO = 1.5  # a missing slice doubles a gap; scanners round positions by far less than half a gap
FRAMES_OF_A_HEAD = 12  # fewer frames are no head in any reconstruction; their positions are not in the ledger


class Wholeness(Enum):
    """What the evidence says of one series."""

    WHOLE = "whole"  # contiguous at one spacing
    NUMBERED = "numbered"  # instance numbers run from 1 without a hole, though the spacing changes
    HOLES = "holes"  # something is missing in between
    UNKNOWN = "unknown"  # no positions, or numbers that speak against what the positions say


@dataclass(frozen=True)
class SeriesCoverage:
    """One CT series as far as it has come."""

    wholeness: Wholeness
    extent_mm: float  # along the normal, outer edges included; 0 where unknown
    frames: int


def growing_series(instances: Iterable[Instance]) -> dict[str, list[Instance]]:
    """Give the CT series that completion waits for: no localizers, secondary captures, reports or pages."""
    series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        if _is_slice(instance):
            series[instance.series_instance_uid].append(instance)
    return dict(series)


def coverage_of(slices: Sequence[Instance]) -> SeriesCoverage:
    """Judge one CT series by its slice positions (PS3.3 C.7.6.2.1.1) and Instance Numbers."""
    frames = sum(instance.number_of_frames for instance in slices)
    if all(instance.sop_class_uid in MULTI_FRAME_CT for instance in slices):
        return SeriesCoverage(Wholeness.NUMBERED, 0.0, frames)  # each instance is a volume of its own
    stacks = _stacks(slices)
    if not stacks:
        return SeriesCoverage(Wholeness.UNKNOWN, 0.0, frames)
    numbered = _numbers_run_from_one(slices)
    gaps = [_gaps_mm(stack) for stack in stacks]
    extent_mm = max(sum(stack) + (median(stack) if stack else 0.0) for stack in gaps)
    if any(_has_hole(stack) for stack in gaps):
        return SeriesCoverage(Wholeness.NUMBERED if numbered else Wholeness.HOLES, extent_mm, frames)
    return SeriesCoverage(Wholeness.WHOLE if numbered is not False else Wholeness.UNKNOWN, extent_mm, frames)


def _is_slice(instance: Instance) -> bool:
    if instance.sop_class_uid not in MULTI_FRAME_CT and instance.sop_class_uid != CT_IMAGE:
        return False
    image_type = tuple(value.upper() for value in instance.image_type)
    return "LOCALIZER" not in image_type and image_type[1:2] != ("SECONDARY",)


def _stacks(slices: Sequence[Instance]) -> list[list[float]]:
    """Give, for each orientation in the series, the positions along its normal, mm; empty if one has none."""
    stacks: dict[tuple[float, ...], list[float]] = defaultdict(list)
    for instance in slices:
        if instance.image_position_mm is None or instance.image_orientation is None:
            return []
        x, y, z = _normal(instance.image_orientation)
        px, py, pz = instance.image_position_mm
        orientation = tuple(round(cosine, 2) + 0.0 for cosine in instance.image_orientation)
        stacks[orientation].append(x * px + y * py + z * pz)
    return list(stacks.values())


def _normal(orientation: tuple[float, ...]) -> tuple[float, float, float]:
    rx, ry, rz, cx, cy, cz = orientation
    return ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx


def _gaps_mm(positions: Sequence[float]) -> list[float]:
    return [gap for gap in (b - a for a, b in pairwise(sorted(positions))) if gap > SAME_POSITION_MM]


def _has_hole(gaps_mm: Sequence[float]) -> bool:
    return bool(gaps_mm) and max(gaps_mm) > HOLE_RATIO * median(gaps_mm)


def _numbers_run_from_one(slices: Sequence[Instance]) -> bool | None:
    """Whether the Instance Numbers are 1 to n (or 0 to n - 1); None where they say nothing.

    Every other slice sent first looks contiguous at twice the spacing: only the numbers tell.
    """
    numbers = [instance.instance_number for instance in slices if instance.instance_number is not None]
    if len(numbers) < len(slices) or len(set(numbers)) < len(numbers):
        return None
    return min(numbers) in (0, 1) and max(numbers) - min(numbers) == len(numbers) - 1
