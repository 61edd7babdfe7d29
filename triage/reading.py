"""From probability maps to what the list says: one study probability, flagged or not, regions in mL, key slabs.

The worker and the trainer's evaluation both read maps here, so a reported score is the score that is served.

One rule decides: a study is flagged if and only if its calibrated probability reaches the operating point's line.
Regions follow the flag. A flagged study always names at least one region, so it never shows 0 mL; a study below
the line names none, so it never shows millilitres of something that the list does not rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage.finding import Calibration, Component, ModelSpec, OperatingPoint

SCORE_FLOOR = 1e-6  # logit of 0 or 1 is infinite; float32 maps carry no finer difference
KEY_SLABS = 3  # as many as fit beside each other in a preview
TOUCHING = np.ones((3, 3, 3), bool)  # blood in neighbouring slabs touches by a corner as often as by a face

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """What the probability maps of one study say."""

    flagged: bool
    probability: float  # calibrated, of the study, 0 to 1
    volume_ml: float  # all components together
    components: tuple[Component, ...]  # largest first
    key_slabs: tuple[int, ...]  # slab indices with most suspected blood, most first


def read_maps(probability: FloatMap, spacing_mm: tuple[float, float, float], spec: ModelSpec) -> Reading:
    """Read the maps of one study as its model asks.

    Args:
        probability: (Z, Y, X) float32, 0 to 1, one map a slab.
        spacing_mm: (z, y, x) of the slabs.
        spec: the served model's description: operating point and calibration.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    score = study_score(probability, voxel_ml, spec.calibration.score_ml)
    study_probability = calibrated(score, spec.calibration)
    flagged = study_probability >= spec.operating_point.study_probability
    components = _flagged_components(probability, spacing_mm, spec) if flagged else ()
    return Reading(
        flagged=flagged,
        probability=study_probability,
        volume_ml=sum(component.volume_ml for component in components),
        components=components,
        key_slabs=key_slabs(probability, spec.operating_point),
    )


def study_score(probability: FloatMap, voxel_ml: float, score_ml: float) -> float:
    """Give the mean of the highest `score_ml` millilitres of voxel probability; of all voxels where there are fewer."""
    count = min(probability.size, max(1, round(score_ml / voxel_ml)))
    highest = np.partition(probability, probability.size - count, axis=None)[-count:]
    return float(highest.mean(dtype=np.float64))


def calibrated(score: float, calibration: Calibration) -> float:
    """Turn a study score into a probability by Platt scaling: sigmoid(slope * logit(score) + intercept)."""
    return float(1.0 / (1.0 + np.exp(-(calibration.slope * logit(score) + calibration.intercept))))


def score_at(study_probability: float, calibration: Calibration) -> float:
    """Give the study score whose calibrated probability is `study_probability`: the inverse of `calibrated`."""
    score_logit = (logit(study_probability) - calibration.intercept) / calibration.slope
    return float(1.0 / (1.0 + np.exp(-score_logit)))


def logit(probability: float) -> float:
    """Give the log odds, of a probability kept `SCORE_FLOOR` away from 0 and 1."""
    kept = min(max(probability, SCORE_FLOOR), 1.0 - SCORE_FLOOR)
    return float(np.log(kept / (1.0 - kept)))


def components_of(
    probability: FloatMap, spacing_mm: tuple[float, float, float], operating_point: OperatingPoint
) -> tuple[Component, ...]:
    """Find the connected regions (26 neighbours) of voxels at or above the line that are large enough to count.

    Args:
        probability: (Z, Y, X) float32, 0 to 1.
        spacing_mm: (z, y, x).
        operating_point: `voxel_probability` is the line, `smallest_component_ml` the size.

    Returns:
        Largest first.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    labels, count = ndimage.label(probability >= operating_point.voxel_probability, structure=TOUCHING)
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml
    boxes = ndimage.find_objects(labels)
    found = [
        _component(probability, labels, label, boxes[label - 1], float(sizes_ml[label]))
        for label in range(1, count + 1)
        if sizes_ml[label] >= operating_point.smallest_component_ml
    ]
    return tuple(sorted(found, key=lambda component: component.volume_ml, reverse=True))


def key_slabs(probability: FloatMap, operating_point: OperatingPoint, count: int = KEY_SLABS) -> tuple[int, ...]:
    """Name the slabs to look at first, at most `count`: most voxels at or above the line, then highest probability."""
    suspected = (probability >= operating_point.voxel_probability).sum(axis=(1, 2))
    highest = probability.max(axis=(1, 2))
    order = np.lexsort((np.arange(len(probability)), -highest, -suspected))
    return tuple(int(index) for index in order[:count])


def _flagged_components(
    probability: FloatMap, spacing_mm: tuple[float, float, float], spec: ModelSpec
) -> tuple[Component, ...]:
    """Give the regions that count; where none does, the largest of those that carried the study over its line."""
    point = spec.operating_point
    found = components_of(probability, spacing_mm, point)
    if found:
        return found
    # The score is a mean, so at least one voxel of a flagged study lies at or above the score at the line.
    line = score_at(point.study_probability, spec.calibration)
    line = min(line, point.voxel_probability, float(probability.max()))
    lowered = OperatingPoint.model_construct(
        study_probability=point.study_probability, voxel_probability=line, smallest_component_ml=0.0, rule=point.rule
    )
    return components_of(probability, spacing_mm, lowered)[:1]


def _component(
    probability: FloatMap,
    labels: npt.NDArray[np.int32],
    label: int,
    box: tuple[slice, slice, slice],
    volume_ml: float,
) -> Component:
    inside = labels[box] == label
    return Component(
        volume_ml=volume_ml,
        largest_probability=float(probability[box][inside].max()),
        slab_range=(box[0].start, box[0].stop - 1),
    )
