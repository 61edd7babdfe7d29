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
    froc,
    reliability,
    sensitivity_by_group,
    slab_scores,
    study_scores,
    volume_agreement,
)
from training.intervals import Estimate
from training.svg_plot import plot
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
    title = html.escape(f"{spec.name}, version {version}: evaluation")
    body = "\n".join(_section(report) for report in reports)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title><style>"
        "body{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;border-bottom:1px solid #ddd;text-align:left}"
        "figure{display:inline-block;margin:1rem 1rem 1rem 0}svg{background:#fafafa;border:1px solid #ccc}</style>"
        f"<h1>{title}</h1><p>Values with 95 % intervals. Not for diagnosis.</p>{body}</html>\n"
    )


def _section(report: SourceReport) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}<td>{html.escape(value)}" for name, value in rows_of(report))
    reliable = [(part.probability, part.bleeding.value) for part in report.reliability]
    found = [(point.false_regions_a_study, point.found) for point in report.froc]
    plots = (
        plot("ROC of studies: false against true positives", {"": report.roc}, diagonal=True)
        + plot("Reliability: told against observed", {"": reliable}, diagonal=True)
        + plot("FROC: false regions a study against bleeds found", {"": found})
    )
    return f"<h2>{html.escape(report.name)}</h2><table>{rows}</table>{plots}"


def rows_of(report: SourceReport) -> list[tuple[str, str]]:
    """Give the figures as rows of a table."""
    study, slab, volume = report.study, report.slab, report.volume
    return [
        ("studies, with blood", f"{study.studies}, {study.bleeding}"),
        ("study AUC", str(study.auc)),
        ("sensitivity", str(study.sensitivity)),
        ("specificity", str(study.specificity)),
        ("Brier score", f"{study.brier:.3f}"),
        *((f"PPV at {share}", str(value)) for share, value in study.ppv.items()),
        *((f"NPV at {share}", str(value)) for share, value in study.npv.items()),
        ("slab AUC", str(slab.auc)),
        ("Dice of slabs with blood", str(slab.dice)),
        ("Hausdorff 95, mm", str(slab.hausdorff_95_mm)),
        ("surface Dice at 2 mm", str(slab.surface_dice)),
        ("predicted minus true mL", f"{volume.bias_ml}; limits {volume.lower_ml:.1f} to {volume.upper_ml:.1f}"),
        *((f"sensitivity, {name}", str(value)) for name, value in report.sensitivity_by_group.items()),
        ("missed", "; ".join(report.missed) or "none"),
        ("seconds a study, median", f"{report.median_seconds_a_study:.2f}"),
    ]


def _without_nan(value: Any) -> Any:
    """Give JSON's null for nan and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_without_nan(item) for item in value]
    return value
