"""From raw study scores to a probability and an operating point, both chosen on validation patients.

Rule of the study line: the line that loses least of sensitivity and specificity together (Youden), counted over
validation studies that are bleed-free or have at least 3 mL of blood, with every source weighing the same; the middle
of the best interval. Smaller bleeds count in the calibration of the probability, but draw no line: a few voxels of
theirs weigh less than a false alarm in every third study.
Rule of the voxel line: the line of best mean Dice over the real slabs with blood, never above the score at the study
line, so that a flagged study always holds at least one voxel that counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize

from training.evaluation import SCORE_ML, VOXEL_LINES, StudyResult, mean_slice_dice, study_auc
from triage.finding import Calibration, OperatingPoint
from triage.reading import calibrated, logit, score_at

SLOPE_PRIOR = 0.02  # pulls the slope towards 1 where few studies overlap: separable scores would make it infinite
SMALLEST_COMPONENT_ML = 0.1  # about a dozen voxels of the grid: less is noise at the edge of a region
LINE_ML = 3.0  # bleeds from here on draw the study line
STUDY_RULE = (
    f"study line: best sensitivity plus specificity on validation studies of 0 or at least {LINE_ML:g} mL; "
    "every source weighing the same, middle of the best interval; voxel line: best mean Dice over slabs with blood, "
    "not above the score at the study line"
)

Floats = npt.NDArray[np.float64]


def calibrate(results: Sequence[StudyResult]) -> tuple[Calibration, OperatingPoint]:
    """Choose the score's volume, fit Platt scaling to it, and draw the lines.

    Args:
        results: validation studies that training never saw, bleeding and bleed-free.
    """
    clear = [result for result in results if not result.bleed or result.true_ml >= LINE_ML]
    score = best_score(clear)
    calibration = fit_platt(results, source_weights(results), score)
    probabilities = np.array([calibrated(result.scores[score], calibration) for result in clear])
    line = study_line(probabilities, np.array([result.bleed for result in clear]), source_weights(clear))
    voxel = min(_best_voxel_line(results), score_at(line, calibration))
    return calibration, OperatingPoint(
        study_probability=round(line, 4),
        voxel_probability=round(max(voxel, 0.02), 4),
        smallest_component_ml=SMALLEST_COMPONENT_ML,
        rule=STUDY_RULE,
    )


def source_weights(results: Sequence[StudyResult]) -> Floats:
    """Give each study a weight, so that within each class every source weighs the same; they sum to 2."""
    count = Counter((result.source, result.bleed) for result in results)
    sources = Counter(bleed for _, bleed in count)
    return np.array([1.0 / (count[result.source, result.bleed] * sources[result.bleed]) for result in results])


def best_score(results: Sequence[StudyResult]) -> int:
    """Choose which of `SCORE_ML` ranks best: best mean AUC over sources, of equals the widest apart."""
    sources = sorted({result.source.partition(",")[0] for result in results})
    groups = [[result for result in results if result.source.startswith(source)] for source in sources]
    means = [np.nanmean([study_auc(group, score) for group in groups]) for score in range(len(SCORE_ML))]
    best = [score for score, mean in enumerate(means) if mean >= max(means) - 1e-9]
    return max(best, key=lambda score: separation(results, score))


def separation(results: Sequence[StudyResult], score: int) -> float:
    """Give how far bleeding and bleed-free studies lie apart in log odds, in pooled standard deviations."""
    odds = np.array([logit(result.scores[score]) for result in results])
    bleed = np.array([result.bleed for result in results])
    if bleed.all() or not bleed.any():
        return 0.0
    spread = np.sqrt((odds[bleed].var() + odds[~bleed].var()) / 2) + 1e-9
    return float((odds[bleed].mean() - odds[~bleed].mean()) / spread)


def fit_platt(results: Sequence[StudyResult], weights: Floats, score: int) -> Calibration:
    """Fit sigmoid(slope * logit(score) + intercept) to bleeding or not, by weighted likelihood.

    Reference:
        Platt J., Probabilistic outputs for support vector machines, 1999: targets are kept off 0 and 1.
    """
    odds = np.array([logit(result.scores[score]) for result in results])
    bleed = np.array([result.bleed for result in results])
    positives, negatives = int(bleed.sum()), int((~bleed).sum())
    target = np.where(bleed, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: Floats) -> float:
        slope = np.exp(parameters[0])
        z = slope * odds + parameters[1]
        likelihood = weights * (np.logaddexp(0, z) - target * z)
        return float(likelihood.sum() + SLOPE_PRIOR * parameters[0] ** 2)

    fitted = optimize.minimize(loss, np.array([0.0, -float(odds.mean())]), method="Nelder-Mead")
    slope, intercept = np.exp(fitted.x[0]), fitted.x[1]
    return Calibration(score_ml=SCORE_ML[score], slope=round(float(slope), 5), intercept=round(float(intercept), 5))


def study_line(probabilities: Floats, bleed: npt.NDArray[np.bool_], weights: Floats) -> float:
    """Draw the line that loses least of sensitivity plus specificity; the middle of the widest best interval."""
    edges = np.concatenate(([0.0], np.unique(probabilities), [1.0]))
    lines = (edges[:-1] + edges[1:]) / 2
    missed = np.array([(weights * (bleed & (probabilities < line))).sum() for line in lines])
    alarms = np.array([(weights * (~bleed & (probabilities >= line))).sum() for line in lines])
    cost = missed + alarms
    best = np.flatnonzero(cost <= cost.min() + 1e-9)
    widths = (edges[1:] - edges[:-1])[best]
    return float(lines[best[widths.argmax()]])


def _best_voxel_line(results: Sequence[StudyResult]) -> float:
    real = [result for result in results if result.source != "phantom"] or results
    dice = mean_slice_dice(real)
    return 0.5 if np.isnan(dice).all() else VOXEL_LINES[int(np.nanargmax(dice))]
