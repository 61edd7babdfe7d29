"""Scores of a served model over scans: by study, by slab, by separate bleed, by millilitre; all with 95 % intervals.

Intervals of shares over studies are Wilson's; everything else is drawn again by patient, since slabs of one patient
are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
    sensitivity: Estimate
    specificity: Estimate
    ppv: dict[str, Estimate]  # by prevalence, of slabs
    npv: dict[str, Estimate]
    dice: Estimate
    hausdorff_95_mm: Estimate  # of slabs in which anything was found
    surface_dice: Estimate


@dataclass(frozen=True)
class VolumeAgreement:
    """Predicted minus true volume of bleeding studies, mL (Bland and Altman, Lancet 1986)."""

    bias_ml: Estimate
    lower_ml: float
    upper_ml: float
    pairs_ml: tuple[tuple[float, float], ...] = ()  # true, predicted, of each bleeding study


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
        auc=bootstrap(lambda at: _auc(probability[at], bleed[at]), len(outcomes), _patients(outcomes)),
        sensitivity=sensitivity,
        specificity=specificity,
        brier=float(np.mean((probability - bleed) ** 2)),
        ppv={share: values[0] for share, values in by_prevalence.items()},
        npv={share: values[1] for share, values in by_prevalence.items()},
    )


def predictive_values(outcomes: Outcomes, prevalence: float) -> tuple[Estimate, Estimate]:
    """Give positive and negative predictive value where `prevalence` of studies bleed."""
    _, bleed, flagged = _studies(outcomes)
    return _predictive_values([bleed[[at]] for at in range(len(bleed))], [flagged[[at]] for at in range(len(bleed))],
                              prevalence, outcomes)  # fmt: skip


def slab_scores(outcomes: Outcomes) -> SlabScores:
    """Score slabs; slabs of a patient are drawn together."""
    score = [np.array([slab.score for slab in outcome.slabs], float) for outcome in outcomes]
    bleed = [np.array([slab.bleed for slab in outcome.slabs], bool) for outcome in outcomes]
    flagged = [np.array([slab.flagged for slab in outcome.slabs], bool) for outcome in outcomes]
    by_prevalence = {f"{share:.0%}": _predictive_values(bleed, flagged, share, outcomes) for share in PREVALENCES}

    def estimate(statistic: Callable[[Floats, Bools, Bools], float]) -> Estimate:
        found = bootstrap(
            lambda at: statistic(*(np.concatenate([part[index] for index in at]) for part in (score, bleed, flagged))),
            len(outcomes),
            _patients(outcomes),
        )
        return replace(found, n=sum(map(len, bleed)))

    return SlabScores(
        slabs=sum(map(len, bleed)),
        bleeding=int(sum(part.sum() for part in bleed)),
        auc=estimate(lambda score, bleed, _: _auc(score, bleed)),
        sensitivity=estimate(lambda _, bleed, flagged: _share(flagged[bleed])),
        specificity=estimate(lambda _, bleed, flagged: _share(~flagged[~bleed])),
        ppv={share: values[0] for share, values in by_prevalence.items()},
        npv={share: values[1] for share, values in by_prevalence.items()},
        dice=_mean_over_slabs(outcomes, lambda slab: slab.dice),
        hausdorff_95_mm=_mean_over_slabs(outcomes, lambda slab: slab.hausdorff_95_mm),
        surface_dice=_mean_over_slabs(outcomes, lambda slab: slab.surface_dice),
    )


def volume_agreement(outcomes: Outcomes) -> VolumeAgreement:
    """Hold the shown volume against the true one, over bleeding studies."""
    bleeding = [outcome for outcome in outcomes if outcome.bleed]
    pairs = tuple((outcome.true_ml, outcome.reading.volume_ml) for outcome in bleeding)
    errors = np.array([predicted - true for true, predicted in pairs])
    if len(errors) < 2:
        nothing = float("nan")
        return VolumeAgreement(Estimate(nothing, nothing, nothing, len(errors)), nothing, nothing, pairs)
    bias = bootstrap(lambda at: float(errors[at].mean()), len(errors), _patients(bleeding))
    spread = 1.96 * float(errors.std(ddof=1))
    return VolumeAgreement(bias, bias.value - spread, bias.value + spread, pairs)


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


def members_by_group(outcomes: Outcomes) -> dict[str, list[ScanOutcome]]:
    """Give the bleeding studies by kind of bleed and by volume."""
    bleeding = [outcome for outcome in outcomes if outcome.bleed]
    groups: dict[str, list[ScanOutcome]] = {}
    for kind in sorted({kind for outcome in bleeding for kind in outcome.kinds}):
        groups[kind] = [outcome for outcome in bleeding if kind in outcome.kinds]
    for low, high in VOLUME_BANDS_ML:
        name = f"{low:g} to {high:g} mL" if np.isfinite(high) else f"from {low:g} mL"
        groups[name] = [outcome for outcome in bleeding if low <= outcome.true_ml < high]
    return groups


def sensitivity_by_group(outcomes: Outcomes) -> dict[str, Estimate]:
    """Give sensitivity by kind of bleed and by volume."""
    return {
        name: wilson(sum(outcome.reading.flagged for outcome in members), len(members))
        for name, members in members_by_group(outcomes).items()
    }


def dice_by_group(outcomes: Outcomes) -> dict[str, Estimate]:
    """Give the mean Dice of slabs with blood by kind of bleed and by volume."""
    return {
        name: _mean_over_slabs(members, lambda slab: slab.dice) for name, members in members_by_group(outcomes).items()
    }


def _predictive_values(
    bleed: Sequence[Bools], flagged: Sequence[Bools], prevalence: float, outcomes: Outcomes
) -> tuple[Estimate, Estimate]:
    """Give positive and negative predictive value by Bayes, of parts that each belong to one study."""

    def value(at: npt.NDArray[np.intp], positive: bool) -> float:
        drawn, said = np.concatenate([bleed[i] for i in at]), np.concatenate([flagged[i] for i in at])
        sensitivity, specificity = _share(said[drawn]), _share(~said[~drawn])
        if positive:
            right, wrong = sensitivity * prevalence, (1.0 - specificity) * (1.0 - prevalence)
        else:
            right, wrong = specificity * (1.0 - prevalence), (1.0 - sensitivity) * prevalence
        return right / (right + wrong) if right + wrong > 0 else float("nan")  # of nan no comparison holds

    return (
        bootstrap(lambda at: value(at, True), len(outcomes), _patients(outcomes)),
        bootstrap(lambda at: value(at, False), len(outcomes), _patients(outcomes)),
    )


def _share(said: Bools) -> float:
    return float(said.mean()) if len(said) else float("nan")


def _patients(outcomes: Outcomes) -> list[tuple[str, str]]:
    return [(outcome.source, outcome.patient) for outcome in outcomes]


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
    values = [np.array([figure(slab) for slab in outcome.slabs]) for outcome in outcomes]
    kept = [(outcome, of_scan[~np.isnan(of_scan)]) for outcome, of_scan in zip(outcomes, values, strict=True)]
    kept = [(outcome, of_scan) for outcome, of_scan in kept if len(of_scan)]
    if not kept:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    estimate = bootstrap(
        lambda at: float(np.concatenate([kept[index][1] for index in at]).mean()),
        len(kept),
        _patients([outcome for outcome, _ in kept]),
    )
    return replace(estimate, n=sum(len(of_scan) for _, of_scan in kept))
