"""Evaluation: figures that can be worked out on paper, and the reports."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from tests.networks import small_spec
from tests.training.small_runs import grid, phantoms
from training.cli import evaluate
from training.evaluation_report import report_of, reports_by_source, roc_of, write_reports
from training.evaluation_scores import froc, predictive_values, slab_scores, study_scores, volume_agreement
from training.export import export_model
from training.labelled_scan import LabelledSlabs
from training.network import build_network, fold_normalisation
from training.scan_outcome import Candidate, ScanOutcome, SlabOutcome, outcomes_of
from training.settings import NetworkSettings
from training.surfaces import surface_distances
from triage.reading import Reading

SPEC = small_spec(48, pixel_mm=5.0)


def outcome(probability, *, bleed, volume_ml=0.0, true_ml=0.0, slabs=(), candidates=(), true_bleeds=0, source="s"):
    flagged = probability >= 0.5
    return ScanOutcome(
        source=source,
        patient="p",
        kinds=("IPH",) if bleed else (),
        bleed=bleed,
        true_ml=true_ml,
        slab_mm=5.0,
        reading=Reading(flagged, probability, volume_ml, (), (0,)),
        slabs=slabs,
        true_bleeds=true_bleeds,
        candidates=candidates,
        seconds=1.0,
    )


def test_hausdorff_and_surface_dice_of_shifted_squares():
    truth, found = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[5:10, 5:10] = True
    found[5:10, 8:13] = True  # three voxels of 2 mm further

    distances = surface_distances(found, truth, (2.0, 2.0))

    assert distances.hausdorff_95_mm == pytest.approx(6.0)
    assert distances.surface_dice(6.0) == 1.0
    assert distances.surface_dice(0.0) < 0.5


def test_distance_to_nothing_is_not_a_number():
    region = np.ones((4, 4), bool)

    distances = surface_distances(region, np.zeros((4, 4), bool), (1.0, 1.0))

    assert math.isnan(distances.hausdorff_95_mm)
    assert distances.surface_dice(2.0) == 0.0


def test_studies_are_scored_at_the_model_s_own_line():
    outcomes = [outcome(p, bleed=True) for p in (0.9, 0.8, 0.3)] + [outcome(p, bleed=False) for p in (0.6, 0.2)]

    scores = study_scores(outcomes)

    assert scores.sensitivity.value == pytest.approx(2 / 3)
    assert scores.specificity.value == pytest.approx(1 / 2)
    assert scores.auc.value == pytest.approx(5 / 6)  # only 0.3 lies below 0.6
    assert scores.brier == pytest.approx((0.01 + 0.04 + 0.49 + 0.36 + 0.04) / 5)


def test_predictive_values_follow_bayes():
    outcomes = [outcome(0.9, bleed=True)] * 9 + [outcome(0.1, bleed=True)]
    outcomes += [outcome(0.1, bleed=False)] * 8 + [outcome(0.9, bleed=False)] * 2

    ppv, npv = predictive_values(outcomes, 0.1)

    assert ppv.value == pytest.approx(0.09 / (0.09 + 0.18))  # sensitivity 0.9, specificity 0.8
    assert npv.value == pytest.approx(0.72 / (0.72 + 0.01))


def test_slab_dice_is_a_mean_over_slabs_with_blood():
    nothing = SlabOutcome(0.1, False, math.nan, math.nan, math.nan)
    slabs = (SlabOutcome(0.9, True, 0.4, 3.0, 0.5), SlabOutcome(0.8, True, 0.8, 5.0, 0.7), nothing)

    scores = slab_scores([outcome(0.9, bleed=True, slabs=slabs)])

    assert (scores.slabs, scores.bleeding, scores.dice.n) == (3, 2, 2)
    assert scores.dice.value == pytest.approx(0.6)
    assert scores.hausdorff_95_mm.value == pytest.approx(4.0)


def test_volume_agreement_has_bias_and_limits():
    outcomes = [
        outcome(0.9, bleed=True, volume_ml=12.0, true_ml=10.0),
        outcome(0.9, bleed=True, volume_ml=8.0, true_ml=10.0),
    ]

    agreement = volume_agreement(outcomes)

    assert agreement.bias_ml.value == 0.0
    assert agreement.upper_ml == pytest.approx(1.96 * math.sqrt(8))  # deviation of +2 and -2


def test_free_response_curve_counts_bleeds_found_and_false_regions():
    candidates = (Candidate(0.9, (1,)), Candidate(0.6, ()), Candidate(0.3, (2,)))
    outcomes = [outcome(0.9, bleed=True, candidates=candidates, true_bleeds=2), outcome(0.1, bleed=False)]

    points = {point.line: point for point in froc(outcomes)}

    assert (points[0.1].found, points[0.1].false_regions_a_study) == (1.0, 0.5)
    assert (points[0.5].found, points[0.5].false_regions_a_study) == (0.5, 0.5)
    assert (points[0.7].found, points[0.7].false_regions_a_study) == (0.5, 0.0)


def test_roc_runs_from_nothing_to_everything():
    outcomes = [outcome(0.9, bleed=True), outcome(0.6, bleed=False), outcome(0.3, bleed=True)]

    assert roc_of(outcomes) == ((0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0))


def test_perfect_maps_get_perfect_scores():
    blood = np.zeros((4, 48, 48), np.uint8)
    blood[1:3, 20:26, 20:26] = 255  # 72 voxels of 0.125 mL
    scan = LabelledSlabs(np.zeros((4, 48, 48), np.int16), blood, ("IPH",), "1", "s", -1, 0.125, (5.0, 5.0, 5.0))

    def network(slabs):  # a slab's own blood, whatever it is asked
        return (blood / 255).astype(np.float32)[: len(slabs)]

    [found] = outcomes_of([scan], network, SPEC)

    assert found.reading.flagged
    assert found.reading.volume_ml == found.true_ml == 9.0
    assert [slab.dice for slab in found.slabs if slab.bleed] == [1.0, 1.0]
    assert found.candidates == (Candidate(1.0, (1,)),)


def test_reports_are_json_without_nan_and_a_page(tmp_path):
    outcomes = [outcome(0.9, bleed=True), outcome(0.1, bleed=False), outcome(0.4, bleed=True, source="<other>")]

    write_reports(tmp_path, SPEC, "1", reports_by_source(outcomes))

    content = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert [scores["name"] for scores in content["scores"]] == ["s", "<other>"]
    assert content["scores"][1]["study"]["auc"]["value"] is None  # no bleed-free study
    page = (tmp_path / "evaluation.html").read_text()
    assert "&lt;other&gt;" in page
    assert "study AUC" in page


def test_missed_bleeds_are_named_by_kind_and_volume():
    report = report_of("s", [outcome(0.4, bleed=True, true_ml=3.21), outcome(0.1, bleed=False)])

    assert report.missed == ("IPH, 3.2 mL",)


def run_with_test_set(folder, shards, *, pixel_mm=5.0):
    """Text of a run that has a test set."""
    source = '[[source]]\nkind = "phantom"\n'
    return f'folder = "{folder}"\nshards = "{shards}"\n' + grid(pixel_mm) + source + phantoms("test")


@pytest.fixture
def model(tmp_path):
    settings = NetworkSettings(widths=(4, 8))
    served = fold_normalisation(build_network(settings, (48, 48)), settings, (48, 48))
    return export_model(served, SPEC, tmp_path / "models", 1)


def test_command_evaluates_a_served_version(model, shards, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(run_with_test_set(tmp_path, shards))

    result = CliRunner().invoke(
        evaluate, [str(config), str(model), "--out", str(tmp_path / "out")], catch_exceptions=False
    )

    assert result.exit_code == 0
    assert "study AUC" in result.output
    [scores] = json.loads((tmp_path / "out" / "evaluation.json").read_text())["scores"]
    assert scores["study"]["studies"] == 3


def test_grid_that_is_not_the_model_s_is_refused(model, shards, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(run_with_test_set(tmp_path, shards, pixel_mm=2.5))

    result = CliRunner().invoke(evaluate, [str(config), str(model)])

    assert result.exit_code == 1
    assert "The model reads" in result.output


def test_folder_that_is_no_model_is_named(shards, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(run_with_test_set(tmp_path, shards))

    result = CliRunner().invoke(evaluate, [str(config), str(tmp_path)])

    assert result.exit_code == 1
    assert "is no version of a model" in result.output
