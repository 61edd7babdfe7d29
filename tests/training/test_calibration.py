"""Calibration and operating point, on scores whose best line is plain to see."""

import numpy as np
import pytest

from training.calibration import calibrate, fit_platt, source_weights, study_line
from training.evaluation import SCORE_ML, VOXEL_LINES, StudyResult, area_under_curve
from training.intervals import bootstrap, wilson
from triage.reading import calibrated, score_at


def result(score, *, bleed, source="real", dice=0.5):
    return StudyResult(
        source=source,
        patient="p",
        kinds=("IPH",) if bleed else (),
        bleed=bleed,
        true_ml=10.0 * bleed,
        scores=(score,) * len(SCORE_ML),
        slice_dice=np.full((len(VOXEL_LINES), 2 if bleed else 0), dice),
        predicted_ml=(10.0,) * len(VOXEL_LINES),
    )


def test_separable_studies_are_separated_by_the_line():
    results = [result(s, bleed=True) for s in (0.8, 0.9, 0.95)] + [result(s, bleed=False) for s in (0.05, 0.1, 0.2)]

    calibration, point = calibrate(results)

    probabilities = [calibrated(r.scores[0], calibration) for r in results]
    assert all(p >= point.study_probability for p in probabilities[:3])
    assert all(p < point.study_probability for p in probabilities[3:])


def test_platt_scaling_finds_the_slope_that_made_the_labels():
    rng = np.random.default_rng(1)
    odds = rng.normal(0, 2, 4000)
    bleed = rng.random(4000) < 1 / (1 + np.exp(-(1.5 * odds + 0.5)))
    results = [result(1 / (1 + np.exp(-o)), bleed=bool(b)) for o, b in zip(odds, bleed, strict=True)]

    calibration = fit_platt(results, np.ones(4000), 0)

    assert calibration.slope == pytest.approx(1.5, abs=0.15)
    assert calibration.intercept == pytest.approx(0.5, abs=0.15)


def test_line_is_in_the_middle_of_the_best_interval():
    probabilities = np.array([0.1, 0.2, 0.6, 0.9])

    line = study_line(probabilities, np.array([False, False, True, True]), np.ones(4))

    assert line == pytest.approx(0.4)


def test_every_source_weighs_the_same_within_a_class():
    results = [result(0.9, bleed=True)] * 3 + [result(0.9, bleed=True, source="phantom")]

    weights = source_weights(results)

    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_voxel_line_never_lies_above_the_score_at_the_study_line():
    results = [result(s, bleed=True) for s in (0.15, 0.2)] + [result(s, bleed=False) for s in (0.01, 0.02)]

    calibration, point = calibrate(results)

    assert point.voxel_probability <= score_at(point.study_probability, calibration) + 1e-3


def test_area_under_curve_counts_pairs_and_ties_half():
    assert area_under_curve([0.9, 0.5], [0.5, 0.1]) == pytest.approx(3.5 / 4)


def test_wilson_interval_of_nine_in_ten():
    estimate = wilson(9, 10)

    assert (estimate.low, estimate.high) == (pytest.approx(0.596, abs=1e-3), pytest.approx(0.982, abs=1e-3))


def test_bootstrap_interval_of_a_mean_holds_it():
    values = np.arange(100.0)

    estimate = bootstrap(lambda at: float(values[at].mean()), 100)

    assert estimate.value == 49.5
    assert 42 < estimate.low < 46 < 53 < estimate.high < 57
