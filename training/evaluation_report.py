"""The evaluation as one JSON file and one HTML page that needs nothing else."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation_scores import (
    FrocPoint,
    Outcomes,
    ReliabilityBin,
    SlabScores,
    StudyScores,
    VolumeAgreement,
    dice_by_group,
    froc,
    reliability,
    sensitivity_by_group,
    slab_scores,
    study_scores,
    volume_agreement,
)
from training.intervals import Estimate
from training.svg_plot import html_page, plot, roc_plot
from triage.finding import ModelSpec

THICK_MM = 2.5  # slices from here on count as thick


@dataclass(frozen=True)
class SourceReport:
    """All scores of one group of scans: a source, or thick or thin slices of it."""

    name: str
    study: StudyScores
    slab: SlabScores
    volume: VolumeAgreement
    froc: tuple[FrocPoint, ...]
    reliability: tuple[ReliabilityBin, ...]
    sensitivity_by_group: dict[str, Estimate]
    dice_by_group: dict[str, Estimate]
    roc: tuple[tuple[float, float], ...]  # false and true positive share of studies
    missed: tuple[str, ...]
    median_seconds_a_study: float


def report_of(name: str, outcomes: Outcomes) -> SourceReport:
    """Score one group of scans."""
    return SourceReport(
        name=name,
        study=study_scores(outcomes),
        slab=slab_scores(outcomes),
        volume=volume_agreement(outcomes),
        froc=froc(outcomes),
        reliability=reliability(outcomes),
        sensitivity_by_group=sensitivity_by_group(outcomes),
        dice_by_group=dice_by_group(outcomes),
        roc=roc_of(outcomes),
        missed=tuple(
            f"{'+'.join(outcome.kinds)}, {outcome.true_ml:.1f} mL"
            for outcome in outcomes
            if outcome.bleed and not outcome.reading.flagged
        ),
        median_seconds_a_study=float(np.median([outcome.seconds for outcome in outcomes])),
    )


def reports_by_source(outcomes: Outcomes) -> list[SourceReport]:
    """Score each source, and thin and thick slices apart where a source has both."""
    reports = []
    for source in dict.fromkeys(outcome.source for outcome in outcomes):
        members = [outcome for outcome in outcomes if outcome.source == source]
        reports.append(report_of(source, members))
        thick = [outcome for outcome in members if outcome.slab_mm >= THICK_MM]
        if 0 < len(thick) < len(members):
            reports.append(report_of(f"{source}, slices from {THICK_MM} mm", thick))
            thin = [outcome for outcome in members if outcome.slab_mm < THICK_MM]
            reports.append(report_of(f"{source}, thinner slices", thin))
    return reports


def roc_of(outcomes: Outcomes) -> tuple[tuple[float, float], ...]:
    """Give the ROC curve of studies from (0, 0) to (1, 1)."""
    ordered = sorted(outcomes, key=lambda outcome: -outcome.reading.probability)
    positives = sum(outcome.bleed for outcome in ordered)
    negatives = len(ordered) - positives
    if not positives or not negatives:
        return ()
    points, true, false = [(0.0, 0.0)], 0, 0
    for outcome in ordered:
        true, false = true + outcome.bleed, false + (not outcome.bleed)
        points.append((false / negatives, true / positives))
    return tuple(points)


def write_reports(folder: Path, spec: ModelSpec, version: str, reports: Sequence[SourceReport]) -> None:
    """Write `evaluation.json` and `evaluation.html` into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": json.loads(spec.model_dump_json()), "version": version, "scores": [asdict(r) for r in reports]}
    (folder / "evaluation.json").write_text(json.dumps(_without_nan(content), indent=1) + "\n")
    (folder / "evaluation.html").write_text(page(spec, version, reports))


def page(spec: ModelSpec, version: str, reports: Sequence[SourceReport]) -> str:
    """Give the HTML page."""
    point = spec.operating_point
    note = (
        "<p class='note'>Values with 95 % intervals: Wilson's for shares of studies, drawn again by patient for the "
        f"others. Flagged from a study probability of {point.study_probability:g}; voxels count from "
        f"{point.voxel_probability:g}. Rule: {html.escape(point.rule)}. Not for diagnosis.</p>"
    )
    body = "".join(_section(report) for report in reports)
    return html_page(f"{spec.name}, version {version}: evaluation", note + body)


def _section(report: SourceReport) -> str:
    tables = "".join(
        f"<section><h3>{title}</h3><table>"
        f"{''.join(f'<tr><th>{_text(name)}<td>{_text(value)}' for name, value in rows)}</table></section>"
        for title, rows in groups_of(report).items()
    )
    return f"<h2>{_text(report.name)}</h2><div class='plots'>{_plots(report)}</div><div class='plots'>{tables}</div>"


def _plots(report: SourceReport) -> str:
    reliable = [(part.probability, part.bleeding.value) for part in report.reliability]
    found = [(point.false_regions_a_study, point.found) for point in report.froc]
    volume = report.volume
    differences = [((true + predicted) / 2.0, predicted - true) for true, predicted in volume.pairs_ml]
    levels = [v for v in (volume.lower_ml, volume.bias_ml.value, volume.upper_ml) if math.isfinite(v)]
    return (
        roc_plot("ROC of studies", {"": report.roc})
        + plot(
            "Reliability of the study probability",
            {"": reliable},
            diagonal=True,
            dots=True,
            x_label="told",
            y_label="bled",
        )
        + plot("Free-response ROC", {"": found}, x_label="false regions a study", y_label="share of bleeds found")
        + plot(
            "Bland-Altman: bias and limits of agreement",
            {"": differences},
            scatter=True,
            levels=levels,
            x_label="mean of predicted and true, mL",
            y_label="predicted minus true, mL",
        )
    )


def rows_of(report: SourceReport) -> list[tuple[str, str]]:
    """Give the figures as rows of one table."""
    return [
        (name if title == "Studies" else f"{title.lower()}: {name}", value)
        for title, rows in groups_of(report).items()
        for name, value in rows
    ]


def groups_of(report: SourceReport) -> dict[str, list[tuple[str, str]]]:
    """Give the figures as rows of a table each for studies, slabs, volumes and groups of bleeds."""
    study, slab, volume = report.study, report.slab, report.volume
    return {
        "Studies": [
            ("studies, with blood", f"{study.studies}, {study.bleeding}"),
            ("study AUC", str(study.auc)),
            *_rates(study),
            ("Brier score", f"{study.brier:.3f}"),
            ("missed", "; ".join(report.missed) or "none"),
            ("seconds a study, median", f"{report.median_seconds_a_study:.2f}"),
        ],
        "Slabs": [
            ("slabs, with blood", f"{slab.slabs}, {slab.bleeding}"),
            ("slab AUC", str(slab.auc)),
            *_rates(slab),
            ("Dice of slabs with blood", str(slab.dice)),
            ("Hausdorff 95, mm", str(slab.hausdorff_95_mm)),
            ("surface Dice at 2 mm", str(slab.surface_dice)),
        ],
        "Volumes": [
            ("predicted minus true, mL", str(volume.bias_ml)),
            ("limits of agreement, mL", f"{volume.lower_ml:.1f} to {volume.upper_ml:.1f}"),
        ],
        "Sensitivity": [(name, str(value)) for name, value in report.sensitivity_by_group.items()],
        "Dice of slabs with blood": [(name, str(value)) for name, value in report.dice_by_group.items()],
    }


def _rates(scores: StudyScores | SlabScores) -> list[tuple[str, str]]:
    return [
        ("sensitivity", str(scores.sensitivity)),
        ("specificity", str(scores.specificity)),
        *((f"PPV at {share}", str(value)) for share, value in scores.ppv.items()),
        *((f"NPV at {share}", str(value)) for share, value in scores.npv.items()),
    ]


def _text(value: str) -> str:
    return html.escape(value)


def _without_nan(value: Any) -> Any:
    """Give JSON's null for nan and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_without_nan(item) for item in value]
    return value
