"""The scores of a model on scans that training never saw, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.evaluation import SCORE_ML, VOXEL_LINES, StudyResult, area_under_curve
from training.intervals import Estimate, bootstrap, wilson
from triage.finding import ModelSpec
from triage.reading import calibrated

VOLUME_BANDS_ML = ((0.0, 5.0), (5.0, 25.0), (25.0, float("inf")))


@dataclass(frozen=True)
class Scores:
    """The scores of one source of scans; intervals are 95 %, by patient."""

    source: str
    studies: int
    bleeding: int
    study_auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    slice_dice: Estimate  # mean over slabs with blood, at the operating point's voxel line
    brier: float
    volume_error_ml: Estimate  # mean of predicted minus true mL over bleeding studies
    limits_of_agreement_ml: tuple[float, float]  # Bland and Altman
    sensitivity_by_volume: dict[str, Estimate]
    sensitivity_by_kind: dict[str, Estimate]
    missed: tuple[str, ...]  # what was missed, as "kinds, mL"

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def scores_of(results: Sequence[StudyResult], spec: ModelSpec) -> Scores:
    """Score one source's studies with the model's own calibration and operating point."""
    score = SCORE_ML.index(spec.calibration.score_ml)
    probability = np.array([calibrated(result.scores[score], spec.calibration) for result in results])
    bleed = np.array([result.bleed for result in results])
    flagged = probability >= spec.operating_point.study_probability
    errors_ml = _volume_errors_ml(results, flagged, spec)
    patients = [result.patient for result in results]
    bled = [result.patient for result in results if result.bleed]
    return Scores(
        source=results[0].source if results else "",
        studies=len(results),
        bleeding=int(bleed.sum()),
        study_auc=bootstrap(lambda at: _auc(probability[at], bleed[at]), len(results), patients),
        sensitivity=wilson(int((flagged & bleed).sum()), int(bleed.sum())),
        specificity=wilson(int((~flagged & ~bleed).sum()), int((~bleed).sum())),
        slice_dice=_slice_dice(results, spec),
        brier=float(np.mean((probability - bleed) ** 2)),
        volume_error_ml=bootstrap(lambda at: float(errors_ml[at].mean()), len(errors_ml), bled)
        if len(errors_ml)
        else NONE,
        limits_of_agreement_ml=_limits_of_agreement(errors_ml),
        sensitivity_by_volume=_by_volume(results, flagged),
        sensitivity_by_kind=_by_kind(results, flagged),
        missed=tuple(
            f"{'+'.join(result.kinds)}, {result.true_ml:.1f} mL"
            for result, found in zip(results, flagged, strict=True)
            if result.bleed and not found
        ),
    )


NONE = Estimate(float("nan"), float("nan"), float("nan"), 0)


def nearest_line(spec: ModelSpec) -> int:
    """Give the index of the line of `VOXEL_LINES` that the operating point uses, or lies nearest to."""
    return int(np.abs(np.array(VOXEL_LINES) - spec.operating_point.voxel_probability).argmin())


def _auc(probability: np.ndarray, bleed: np.ndarray) -> float:
    return area_under_curve(probability[bleed], probability[~bleed])


def _slice_dice(results: Sequence[StudyResult], spec: ModelSpec) -> Estimate:
    line = nearest_line(spec)
    with_blood = [result for result in results if result.slice_dice.shape[1]]
    if not with_blood:
        return NONE
    dice, patients = [result.slice_dice[line] for result in with_blood], [result.patient for result in with_blood]
    estimate = bootstrap(lambda at: float(np.concatenate([dice[i] for i in at]).mean()), len(dice), patients)
    return Estimate(estimate.value, estimate.low, estimate.high, sum(len(slabs) for slabs in dice))


def _volume_errors_ml(results: Sequence[StudyResult], flagged: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Give predicted minus true mL of bleeding studies; a study that is not flagged shows 0 mL."""
    line = nearest_line(spec)
    return np.array(
        [
            (result.predicted_ml[line] if found else 0.0) - result.true_ml
            for result, found in zip(results, flagged, strict=True)
            if result.bleed
        ]
    )


def _limits_of_agreement(errors_ml: np.ndarray) -> tuple[float, float]:
    if len(errors_ml) < 2:
        return float("nan"), float("nan")
    mean, deviation = float(errors_ml.mean()), float(errors_ml.std(ddof=1))
    return mean - 1.96 * deviation, mean + 1.96 * deviation


def _by_volume(results: Sequence[StudyResult], flagged: np.ndarray) -> dict[str, Estimate]:
    found = {}
    for low, high in VOLUME_BANDS_ML:
        band = [
            bool(flag)
            for result, flag in zip(results, flagged, strict=True)
            if result.bleed and low <= result.true_ml < high
        ]
        name = f"{low:g} to {high:g} mL" if np.isfinite(high) else f"from {low:g} mL"
        found[name] = wilson(sum(band), len(band))
    return found


def _by_kind(results: Sequence[StudyResult], flagged: np.ndarray) -> dict[str, Estimate]:
    kinds = sorted({kind for result in results for kind in result.kinds})
    return {
        kind: wilson(
            sum(bool(flag) for result, flag in zip(results, flagged, strict=True) if kind in result.kinds),
            sum(kind in result.kinds for result in results),
        )
        for kind in kinds
    }
