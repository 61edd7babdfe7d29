"""Evaluate one served version on the test scans of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.evaluation_report import SourceReport, reports_by_source, write_reports
from training.run import convert_sources
from training.scan_outcome import ScanOutcome, outcomes_of
from training.serving_network import load_served
from training.settings import GridSettings, RunSettings
from training.shards import read_scans
from triage.errors import ConfigError


def evaluate_model(
    settings: RunSettings, model: Path, *, out: Path | None, say: Callable[[str], None]
) -> list[SourceReport]:
    """Score the version in `model` on the `test` sources of `settings`, and write the reports.

    Args:
        settings: name the scans; their grid must be the model's.
        model: folder of one version.
        out: folder for `evaluation.json` and `evaluation.html`; none: nothing is written.
        say: takes lines for the person who waits.

    Raises:
        ConfigError: no test source, no such model, or a grid that is not the model's.
    """
    if not settings.test:
        raise ConfigError("The configuration names no test source; add one as [[test]].")
    network, spec = load_served(model)
    grid = GridSettings(rows=spec.rows, columns=spec.columns, spacing_mm=spec.spacing_mm)
    if settings.grid != grid:
        raise ConfigError(f"The model reads {grid!r}, the configuration converts to {settings.grid!r}.")
    outcomes: list[ScanOutcome] = []
    for _, folder in convert_sources(settings, settings.test, say):
        outcomes.extend(outcomes_of(read_scans(folder), network, spec))
        say(f"{len(outcomes)} scans read")
    reports = reports_by_source(outcomes)
    if out is not None:
        write_reports(out, spec, model.name, reports)
    return reports
