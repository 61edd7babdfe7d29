"""Scores of a served model over scans: by study, by slab, by separate bleed, by millilitre; all with 95 % intervals.

Intervals of shares over studies are Wilson's; everything else is drawn again by patient, since slabs of one patient
are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation import area_under_curve
from training.intervals import Estimate, bootstrap, wilson
from training.scan_outcome import ScanOutcome

PREVALENCES = (0.02, 0.05, 0.10, 0.20)  # of bleeds among head CTs: a clinic, an emergency department, a trauma centre
VOLUME_BANDS_ML = ((0.0, 5.0), (5.0, 25.0), (25.0, float("inf")))
FROC_LINES = tuple(float(line) for line in np.round(np.linspace(0.1, 0.95, 18), 2))
RELIABILITY_BINS = 5

Outcomes = Sequence[ScanOutcome]


@dataclass(frozen=True)
class StudyScores:
    """By study, at the model's own operating point."""

    studies: int
    bleeding: int
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    brier: float
    ppv: dict[str, Estimate]  # by prevalence
    npv: dict[str, Estimate]


@dataclass(frozen=True)
class SlabScores:
    """By slab."""

    slabs: int
    bleeding: int
    auc: Estimate
    dice: Estimate
    hausdorff_95_mm: Estimate  # of slabs in which anything was found
    surface_dice: Estimate


@dataclass(frozen=True)
class VolumeAgreement:
    """Predicted minus true volume of bleeding studies, mL (Bland and Altman, Lancet 1986)."""

    bias_ml: Estimate
    lower_ml: float
    upper_ml: float


@dataclass(frozen=True)
class FrocPoint:
    """Free-response ROC: share of bleeds found against false regions a study."""

    line: float
    found: float
    false_regions_a_study: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Of studies told about this probability, how many bled."""

    probability: float
    bleeding: Estimate


def study_scores(outcomes: Outcomes) -> StudyScores:
    """Score studies: flagged or not, and by probability."""
    probability, bleed, flagged = _studies(outcomes)
    sensitivity = wilson(int((flagged & bleed).sum()), int(bleed.sum()))
    specificity = wilson(int((~flagged & ~bleed).sum()), int((~bleed).sum()))
    by_prevalence = {f"{share:.0%}": predictive_values(outcomes, share) for share in PREVALENCES}
    return StudyScores(
        studies=len(outcomes),
        bleeding=int(bleed.sum()),
        auc=bootstrap(lambda at: _auc(probability[at], bleed[at]), len(outcomes)),
        sensitivity=sensitivity,
        specificity=specificity,
        brier=float(np.mean((probability - bleed) ** 2)),
        ppv={share: values[0] for share, values in by_prevalence.items()},
        npv={share: values[1] for share, values in by_prevalence.items()},
    )


def predictive_values(outcomes: Outcomes, prevalence: float) -> tuple[Estimate, Estimate]:
    """Give positive and negative predictive value where `prevalence` of studies bleed (Bayes)."""
    _, bleed, flagged = _studies(outcomes)

    def value(at: npt.NDArray[np.intp], positive: bool) -> float:
        positives, negatives = flagged[at][bleed[at]], flagged[at][~bleed[at]]
        if not len(positives) or not len(negatives):
            return float("nan")
        sensitivity, specificity = positives.mean(), 1.0 - negatives.mean()
        if positive:
            right, wrong = sensitivity * prevalence, (1.0 - specificity) * (1.0 - prevalence)
        else:
            right, wrong = specificity * (1.0 - prevalence), (1.0 - sensitivity) * prevalence
        return float(right / (right + wrong)) if right + wrong > 0 else float("nan")

    return (
        bootstrap(lambda at: value(at, True), len(outcomes)),
        bootstrap(lambda at: value(at, False), len(outcomes)),
    )


def slab_scores(outcomes: Outcomes) -> SlabScores:
    """Score slabs."""
    slabs = [slab for outcome in outcomes for slab in outcome.slabs]
    score = [np.array([slab.score for slab in outcome.slabs], float) for outcome in outcomes]
    bleed = [np.array([slab.bleed for slab in outcome.slabs], bool) for outcome in outcomes]

    def auc(at: npt.NDArray[np.intp]) -> float:
        return _auc(np.concatenate([score[index] for index in at]), np.concatenate([bleed[index] for index in at]))

    return SlabScores(
        slabs=len(slabs),
        bleeding=sum(slab.bleed for slab in slabs),
        auc=bootstrap(auc, len(outcomes)),
        dice=_mean_over_slabs(outcomes, lambda slab: slab.dice),
        hausdorff_95_mm=_mean_over_slabs(outcomes, lambda slab: slab.hausdorff_95_mm),
        surface_dice=_mean_over_slabs(outcomes, lambda slab: slab.surface_dice),
    )


def volume_agreement(outcomes: Outcomes) -> VolumeAgreement:
    """Hold the shown volume against the true one, over bleeding studies."""
    errors = np.array([outcome.reading.volume_ml - outcome.true_ml for outcome in outcomes if outcome.bleed])
    if len(errors) < 2:
        nothing = float("nan")
        return VolumeAgreement(Estimate(nothing, nothing, nothing, len(errors)), nothing, nothing)
    bias = bootstrap(lambda at: float(errors[at].mean()), len(errors))
    spread = 1.96 * float(errors.std(ddof=1))
    return VolumeAgreement(bias, bias.value - spread, bias.value + spread)


def froc(outcomes: Outcomes) -> tuple[FrocPoint, ...]:
    """Draw the free-response curve: regions count by their peak probability; a touched bleed is found."""
    bleeds = sum(outcome.true_bleeds for outcome in outcomes)
    points = []
    for line in FROC_LINES:
        found = false = 0
        for outcome in outcomes:
            counted = [candidate for candidate in outcome.candidates if candidate.probability >= line]
            found += len({bleed for candidate in counted for bleed in candidate.bleeds})
            false += sum(not candidate.bleeds for candidate in counted)
        points.append(FrocPoint(line, found / bleeds if bleeds else float("nan"), false / max(1, len(outcomes))))
    return tuple(points)


def reliability(outcomes: Outcomes) -> tuple[ReliabilityBin, ...]:
    """Draw the reliability curve: equal parts of the studies by probability, and how many of each bled."""
    probability, bleed, _ = _studies(outcomes)
    parts = np.array_split(np.argsort(probability), min(RELIABILITY_BINS, len(outcomes)))
    return tuple(
        ReliabilityBin(float(probability[part].mean()), wilson(int(bleed[part].sum()), len(part)))
        for part in parts
        if len(part)
    )


def sensitivity_by_group(outcomes: Outcomes) -> dict[str, Estimate]:
    """Give sensitivity by kind of bleed and by volume."""
    groups: dict[str, list[ScanOutcome]] = {}
    for kind in sorted({kind for outcome in outcomes for kind in outcome.kinds}):
        groups[kind] = [outcome for outcome in outcomes if kind in outcome.kinds]
    for low, high in VOLUME_BANDS_ML:
        name = f"{low:g} to {high:g} mL" if np.isfinite(high) else f"from {low:g} mL"
        groups[name] = [outcome for outcome in outcomes if outcome.bleed and low <= outcome.true_ml < high]
    return {
        name: wilson(sum(outcome.reading.flagged for outcome in members), len(members))
        for name, members in groups.items()
    }


def _studies(
    outcomes: Outcomes,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    probability = np.array([outcome.reading.probability for outcome in outcomes], float)
    bleed = np.array([outcome.bleed for outcome in outcomes], bool)
    flagged = np.array([outcome.reading.flagged for outcome in outcomes], bool)
    return probability, bleed, flagged


def _auc(score: npt.NDArray[np.float64], bleed: npt.NDArray[np.bool_]) -> float:
    return area_under_curve(score[bleed], score[~bleed])


def _mean_over_slabs(outcomes: Outcomes, figure: Callable[..., float]) -> Estimate:
    """Give the mean of a figure over slabs that have it, drawn again by patient; `n` counts slabs."""
    values = [[figure(slab) for slab in outcome.slabs] for outcome in outcomes]
    kept = [np.array([value for value in of_scan if not np.isnan(value)]) for of_scan in values]
    kept = [of_scan for of_scan in kept if len(of_scan)]
    if not kept:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    estimate = bootstrap(lambda at: float(np.concatenate([kept[index] for index in at]).mean()), len(kept))
    return Estimate(estimate.value, estimate.low, estimate.high, sum(len(of_scan) for of_scan in kept))
