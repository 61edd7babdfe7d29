"""One scan through a served model, held against its truth: the study, its slabs and its separate bleeds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.evaluation import POSITIVE_SHARE, Network, predict_scan
from training.labelled_scan import LabelledSlabs
from training.surfaces import surface_distances
from triage.finding import ModelSpec
from triage.reading import TOUCHING, FloatMap, Reading, read_maps, study_score

SLAB_SCORE_ML = 0.25  # a slab's score is the mean of its highest quarter millilitre
SURFACE_TOLERANCE_MM = 2.0  # about what two readers' outlines differ by
CANDIDATE_LINE = 0.05  # voxels from here on form candidates; their peak decides at which line each counts


@dataclass(frozen=True)
class SlabOutcome:
    """One slab: its score, whether it has blood, and how well that was outlined (nan without blood)."""

    score: float
    bleed: bool
    dice: float
    hausdorff_95_mm: float
    surface_dice: float
    flagged: bool = False  # at least the smallest region's volume is at or above the voxel line


@dataclass(frozen=True)
class Candidate:
    """One region that the model suspects: its peak and the true bleeds that it touches."""

    probability: float
    bleeds: tuple[int, ...]


@dataclass(frozen=True)
class ScanOutcome:
    """What the model made of one scan."""

    source: str
    patient: str
    kinds: tuple[str, ...]
    bleed: bool
    true_ml: float
    slab_mm: float
    reading: Reading
    slabs: tuple[SlabOutcome, ...]
    true_bleeds: int
    candidates: tuple[Candidate, ...]
    seconds: float


def outcomes_of(scans: Iterable[LabelledSlabs], network: Network, spec: ModelSpec) -> Iterator[ScanOutcome]:
    """Read scans as the worker does, one after another."""
    for scan in scans:
        started = time.perf_counter()
        probability = predict_scan(scan, network, spec.context)
        reading = read_maps(probability, scan.spacing_mm, spec)
        yield outcome_of(scan, probability, reading, spec, time.perf_counter() - started)


def outcome_of(
    scan: LabelledSlabs, probability: FloatMap, reading: Reading, spec: ModelSpec, seconds: float
) -> ScanOutcome:
    """Hold one scan's maps and reading against its truth."""
    truth = scan.blood >= POSITIVE_SHARE
    found = probability >= spec.operating_point.voxel_probability
    true_labels, true_bleeds = ndimage.label(truth, structure=TOUCHING)
    return ScanOutcome(
        source=scan.source,
        patient=scan.patient,
        kinds=scan.kinds,
        bleed=scan.bleed,
        true_ml=float(truth.sum()) * scan.voxel_ml,
        slab_mm=scan.spacing_mm[0],
        reading=reading,
        slabs=tuple(_slab(probability[z], found[z], truth[z], scan, spec) for z in range(len(truth))),
        true_bleeds=true_bleeds,
        candidates=_candidates(probability, true_labels),
        seconds=seconds,
    )


def _slab(
    probability: FloatMap,
    found: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.bool_],
    scan: LabelledSlabs,
    spec: ModelSpec,
) -> SlabOutcome:
    score = study_score(probability, scan.voxel_ml, SLAB_SCORE_ML)
    found_ml = float(found.sum()) * scan.voxel_ml
    flagged = found_ml > 0 and found_ml >= spec.operating_point.smallest_component_ml
    if not truth.any():
        return SlabOutcome(score, False, float("nan"), float("nan"), float("nan"), flagged)
    distances = surface_distances(found, truth, scan.spacing_mm[1:])
    dice = 2.0 * float((found & truth).sum()) / float(found.sum() + truth.sum())
    surface_dice = distances.surface_dice(SURFACE_TOLERANCE_MM)
    return SlabOutcome(score, True, dice, distances.hausdorff_95_mm, surface_dice, flagged)


def _candidates(probability: FloatMap, true_labels: npt.NDArray[np.int32]) -> tuple[Candidate, ...]:
    labels, count = ndimage.label(probability >= CANDIDATE_LINE, structure=TOUCHING)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels, count), start=1):
        inside = labels[box] == label
        touched = np.unique(true_labels[box][inside])
        peak = float(probability[box][inside].max())
        found.append(Candidate(peak, tuple(int(bleed) for bleed in touched if bleed)))
    return tuple(found)
