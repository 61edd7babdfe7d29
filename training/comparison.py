"""Runs side by side: what differs in their settings, their curves, and whether their scores differ by more than noise.

Two runs are compared on the same validated studies, drawn again by patient in pairs: an interval of the difference
that holds 0 is noise.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation import area_under_curve
from training.intervals import Estimate, bootstrap
from training.run_record import RunRecord, StudyFigures, flat_settings
from training.svg_plot import html_page, plot, roc_plot
from triage.errors import ConfigError

SMOOTHED_STEPS = 20  # of a loss curve: single batches jump


@dataclass(frozen=True)
class Difference:
    """How much better the second run is than the first, on the same studies."""

    first: str
    second: str
    source: str
    figure: str
    estimate: Estimate

    @property
    def is_noise(self) -> bool:
        """Whether the interval holds 0, or cannot be drawn."""
        return not (self.estimate.low > 0 or self.estimate.high < 0)


def differences(runs: Sequence[RunRecord]) -> list[Difference]:
    """Compare every later run with the first one, source by source.

    Raises:
        ConfigError: two runs have no validated study in common.
    """
    found = []
    for other in runs[1:]:
        for source, pairs in _paired(runs[0], other).items():
            found.append(Difference(runs[0].name, other.name, source, "study AUC", _auc_difference(pairs)))
            found.append(Difference(runs[0].name, other.name, source, "slice Dice", _dice_difference(pairs)))
    return found


def changed_settings(runs: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    """Give the settings that are not the same in all runs: key, then the value in each."""
    flat = [flat_settings(run.settings) for run in runs]
    keys = sorted({key for settings in flat for key in settings})
    values = {key: tuple(str(settings.get(key, "")) for settings in flat) for key in keys}
    return {key: value for key, value in values.items() if len(set(value)) > 1 and key != "folder"}


@dataclass(frozen=True)
class RunSummary:
    """One run in a row: how long it took, and its scores at its newest validation."""

    name: str
    steps: int
    hours: float
    scores: dict[str, float]


def summary_of(run: RunRecord) -> RunSummary:
    """Put a run into a row."""
    newest = dict(run.validations[-1]) if run.validations else {}
    newest.pop("step", None)
    hours = sum(step.get("seconds", 0.0) for step in run.steps) / 3600
    return RunSummary(run.name, int(run.steps[-1]["step"]) if run.steps else 0, hours, newest)


def comparison_page(runs: Sequence[RunRecord]) -> str:
    """Draw all runs as one HTML page: scores, curves, settings, and the differences with the first run or noise."""
    rows = [
        [f"{d.second} minus {d.first}", d.source, d.figure, str(d.estimate), "noise" if d.is_noise else "differs"]
        for d in differences(runs)
    ]
    names = [run.name for run in runs]
    changed = [[key, *values] for key, values in changed_settings(runs).items()]
    parts = [
        "<h2>Runs</h2>",
        _table(*_summary_rows(runs)),
        "<h2>Differences</h2><p>On the same studies, drawn again by patient in pairs; an interval that holds 0 is "
        "noise.</p>",
        _table(["runs", "source", "score", "difference (95 % interval)", "verdict"], rows),
        "<h2>Curves</h2>",
        *_curves(runs),
        "<h2>Settings that are not the same</h2>",
        _table(["setting", *names], changed),
    ]
    return html_page("Runs compared", "".join(parts))


def _summary_rows(runs: Sequence[RunRecord]) -> tuple[list[str], list[list[str]]]:
    summaries = [summary_of(run) for run in runs]
    scores = list(dict.fromkeys(name for summary in summaries for name in summary.scores))
    rows = [
        [s.name, str(s.steps), f"{s.hours:.2f}", *(f"{s.scores[n]:.3f}" if n in s.scores else "" for n in scores)]
        for s in summaries
    ]
    return ["run", "steps", "hours", *scores], rows


def _curves(runs: Sequence[RunRecord]) -> list[str]:
    losses = {run.name: _smoothed([(step["step"], step["loss"]) for step in run.steps]) for run in runs}
    pictures = [plot("loss", losses, x_label="step")]
    for name in dict.fromkeys(name for run in runs for row in run.validations for name in row if name != "step"):
        lines = {run.name: [(row["step"], row[name]) for row in run.validations if name in row] for run in runs}
        pictures.append(plot(name, lines, x_label="step"))
    for source in dict.fromkeys(study.source for run in runs for study in run.studies):
        curves = {run.name: roc([study for study in run.studies if study.source == source]) for run in runs}
        pictures.append(roc_plot(f"ROC of studies, {source}", curves))
    return pictures


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
    return f"<div class='wide'><table><thead><tr>{cells}</thead><tbody>{lines}</tbody></table></div>"


def roc(studies: Sequence[StudyFigures]) -> list[tuple[float, float]]:
    """Give the ROC curve of studies; empty where one class is missing."""
    positives = sum(study.bleed for study in studies)
    negatives = len(studies) - positives
    if not positives or not negatives:
        return []
    points, true, false = [(0.0, 0.0)], 0, 0
    for study in sorted(studies, key=lambda study: -study.score):
        true, false = true + study.bleed, false + (not study.bleed)
        points.append((false / negatives, true / positives))
    return points


def _paired(first: RunRecord, second: RunRecord) -> dict[str, list[tuple[StudyFigures, StudyFigures]]]:
    """Pair the studies that both runs were validated on, by source."""
    others = {_key(study, place): study for place, study in _placed(second.studies)}
    pairs: dict[str, list[tuple[StudyFigures, StudyFigures]]] = {}
    for place, study in _placed(first.studies):
        if other := others.get(_key(study, place)):
            pairs.setdefault(study.source, []).append((study, other))
    if not pairs:
        raise ConfigError(f"{first.name} and {second.name} were validated on no study in common.")
    return pairs


def _placed(studies: Sequence[StudyFigures]) -> list[tuple[int, StudyFigures]]:
    """Number the studies of each patient: pasted blood makes several of one head."""
    seen: dict[tuple[str, str], int] = {}
    placed = []
    for study in studies:
        place = seen.get((study.source, study.patient), 0)
        seen[study.source, study.patient] = place + 1
        placed.append((place, study))
    return placed


def _key(study: StudyFigures, place: int) -> tuple[str, str, int]:
    return study.source, study.patient, place


def _auc_difference(pairs: Sequence[tuple[StudyFigures, StudyFigures]]) -> Estimate:
    scores = np.array([[first.score, second.score] for first, second in pairs])
    bleed = np.array([first.bleed for first, _ in pairs], bool)

    def difference(at: npt.NDArray[np.intp]) -> float:
        drawn, bleeds = scores[at], bleed[at]
        auc = [area_under_curve(drawn[bleeds, run], drawn[~bleeds, run]) for run in (0, 1)]
        return auc[1] - auc[0]

    return bootstrap(difference, len(pairs), [first.patient for first, _ in pairs])


def _dice_difference(pairs: Sequence[tuple[StudyFigures, StudyFigures]]) -> Estimate:
    bleeding = [(first, second) for first, second in pairs if first.slice_dice]
    gains = [np.subtract(second.slice_dice, first.slice_dice) for first, second in bleeding]
    if not gains:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    patients = [first.patient for first, _ in bleeding]
    return bootstrap(lambda at: float(np.concatenate([gains[index] for index in at]).mean()), len(gains), patients)


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    parts = [points[start : start + SMOOTHED_STEPS] for start in range(0, len(points), SMOOTHED_STEPS)]
    return [(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]
