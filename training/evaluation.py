"""Scans through a network, and what came out against the truth: by study, by slab, by millilitre."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.labelled_scan import LabelledSlabs
from triage.reading import FloatMap, study_score
from triage.volume import with_context

SLABS_A_CALL = 8
SCORE_ML = (0.25, 0.5, 1.0, 2.0, 4.0)  # volumes over which a study's score may be the mean
VOXEL_LINES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
POSITIVE_SHARE = 128  # of 255: a voxel that is half blood is blood

Network = Callable[[npt.NDArray[np.int16]], npt.NDArray[np.float32]]  # (N, Y, X, C) HU to (N, Y, X) probability


@dataclass(frozen=True)
class StudyResult:
    """One scan against its truth.

    Attributes:
        scores: study score for each volume of `SCORE_ML`.
        slice_dice: (lines, positive slabs) Dice of each slab with blood at each of `VOXEL_LINES`.
        predicted_ml: volume at each of `VOXEL_LINES`.
    """

    source: str
    patient: str
    kinds: tuple[str, ...]
    bleed: bool
    true_ml: float
    scores: tuple[float, ...]
    slice_dice: npt.NDArray[np.float64]
    predicted_ml: tuple[float, ...]


def predict_scan(scan: LabelledSlabs, network: Network, context: int) -> FloatMap:
    """Give the probability maps of one scan: (Z, Y, X) float32."""
    slabs = with_context(scan.hu, context)
    maps = [network(slabs[start : start + SLABS_A_CALL]) for start in range(0, len(slabs), SLABS_A_CALL)]
    return np.concatenate(maps)


def evaluate_scans(scans: Iterable[LabelledSlabs], network: Network, context: int) -> list[StudyResult]:
    """Predict scans one after another and hold each against its truth."""
    return [result_of(scan, predict_scan(scan, network, context)) for scan in scans]


def result_of(scan: LabelledSlabs, probability: FloatMap) -> StudyResult:
    """Hold one scan's maps against its truth."""
    truth = scan.blood >= POSITIVE_SHARE
    positive = truth.any(axis=(1, 2))
    lines = [probability >= line for line in VOXEL_LINES]
    return StudyResult(
        source=scan.source,
        patient=scan.patient,
        kinds=scan.kinds,
        bleed=scan.bleed,
        true_ml=float(truth.sum()) * scan.voxel_ml,
        scores=tuple(study_score(probability, scan.voxel_ml, score_ml) for score_ml in SCORE_ML),
        slice_dice=np.array([_dice(found[positive], truth[positive]) for found in lines]),
        predicted_ml=tuple(float(found.sum()) * scan.voxel_ml for found in lines),
    )


def area_under_curve(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Give the area under the ROC curve: how often a bleeding study scores above a bleed-free one, ties half."""
    above, below = np.asarray(positive), np.sort(np.asarray(negative))
    if not above.size or not below.size:
        return float("nan")
    lower, not_higher = np.searchsorted(below, above, "left"), np.searchsorted(below, above, "right")
    return float((lower + not_higher).sum() / (2 * above.size * below.size))


def study_auc(results: Sequence[StudyResult], score: int) -> float:
    """Give the area under the ROC curve of studies by the score over `SCORE_ML[score]` millilitres."""
    positive = [result.scores[score] for result in results if result.bleed]
    negative = [result.scores[score] for result in results if not result.bleed]
    return area_under_curve(positive, negative)


def mean_slice_dice(results: Sequence[StudyResult]) -> npt.NDArray[np.float64]:
    """Give the mean Dice over all slabs with blood, at each of `VOXEL_LINES`; nan without such slabs."""
    slabs = [result.slice_dice for result in results if result.slice_dice.shape[1]]
    if not slabs:
        return np.full(len(VOXEL_LINES), np.nan)
    mean: npt.NDArray[np.float64] = np.concatenate(slabs, axis=1).mean(axis=1)
    return mean


def _dice(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Give the Dice of each slab; the truth of each holds at least one voxel."""
    overlap = (found & truth).sum(axis=(1, 2))
    dice: npt.NDArray[np.float64] = 2.0 * overlap / (found.sum(axis=(1, 2)) + truth.sum(axis=(1, 2)))
    return dice
