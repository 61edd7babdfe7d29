"""Runs side by side: paired differences with intervals that say what is noise."""

import json

import pytest
from click.testing import CliRunner

from training.cli import train
from training.comparison import changed_settings, comparison_page, differences
from training.run_record import RunRecord, StudyFigures, read_run
from training.svg_plot import HEIGHT, LEFT, TOP, WIDTH, plot
from triage.errors import ConfigError


def run(name, scores, dice, *, bleed=(True, False), source="s", settings=None):
    studies = tuple(
        StudyFigures(source, f"p{index}", bleeds, score, (dice,) if bleeds else ())
        for index, (bleeds, score) in enumerate(zip(bleed, scores, strict=True))
    )
    steps = ({"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5})
    return RunRecord(name, settings or {}, steps, (), studies)


MANY = (True, False) * 20


def test_run_that_is_always_better_differs():
    poor = run("poor", (0.5,) * 40, 0.3, bleed=MANY)
    good = run("good", (0.9, 0.1) * 20, 0.6, bleed=MANY)

    auc, dice = differences([poor, good])

    assert (auc.estimate.value, auc.is_noise) == (0.5, False)
    assert dice.estimate.value == pytest.approx(0.3)
    assert not dice.is_noise


def test_same_run_differs_by_noise():
    first, second = run("a", (0.9, 0.1) * 20, 0.5, bleed=MANY), run("b", (0.8, 0.2) * 20, 0.5, bleed=MANY)

    assert all(row.is_noise for row in differences([first, second]))


def test_runs_without_common_studies_cannot_be_compared():
    with pytest.raises(ConfigError, match="a and b were validated on no study in common"):
        differences([run("a", (0.9, 0.1), 0.5), run("b", (0.9, 0.1), 0.5, source="other")])


def test_only_settings_that_differ_are_named():
    first = run("a", (0.9, 0.1), 0.5, settings={"seed": 1, "optimiser": {"steps": 10, "batch": 4}})
    second = run("b", (0.9, 0.1), 0.5, settings={"seed": 1, "optimiser": {"steps": 20, "batch": 4}})

    assert changed_settings([first, second]) == {"optimiser.steps": ("10", "20")}


def test_page_has_curves_and_verdicts():
    page = comparison_page([run("a", (0.9, 0.1), 0.5), run("<b>", (0.8, 0.2), 0.6)])

    assert page.count("stroke-width='2'") == 4  # loss and ROC of two runs
    assert "&lt;b&gt;" in page
    assert "study AUC" in page


def test_plot_puts_the_highest_value_at_the_top():
    picture = plot("loss", {"run": [(0, 1.0), (10, 3.0)]})

    assert f"points='{LEFT}.0,{TOP + HEIGHT}.0 {LEFT + WIDTH}.0,{TOP}.0'" in picture


def write_run(folder, score):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"seed": score}))
    (folder / "steps.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    study = {"source": "s", "patient": "1", "bleed": True, "score": score, "slice_dice": [score]}
    free = study | {"patient": "2", "bleed": False, "slice_dice": []}
    (folder / "studies.json").write_text(json.dumps([study, free]))
    return str(folder)


def test_command_prints_settings_and_differences(tmp_path):
    runs = [write_run(tmp_path / name, score) for name, score in (("a", 0.3), ("b", 0.7))]

    result = CliRunner().invoke(train, ["compare", *runs, "--out", str(tmp_path / "page.html")], catch_exceptions=False)

    assert result.exit_code == 0
    assert "seed: 0.3 | 0.7" in result.output
    assert "b minus a, s, slice Dice: 0.400" in result.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no run: it has no run\.json"):
        read_run(tmp_path)
