"""From a run's checkpoint to a served version: calibrate, score, export, and write the card from the same figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras

from training.calibration import calibrate
from training.evaluation import StudyResult, evaluate_scans
from training.export import export_model, next_version
from training.model_card import Making, card_text
from training.network import fold_normalisation
from training.patients import refuse_leaks
from training.report import Scores, scores_of
from training.run import convert_sources, patients_of
from training.run_record import read_run
from training.serving_network import array_network
from training.settings import RunSettings, SourceSettings
from training.shards import data_sha256, read_scans
from training.tracking import TrackedRun
from training.trainer import Trainer
from triage.errors import ConfigError
from triage.finding import ModelSpec

TRACKED = ("study_auc", "sensitivity", "specificity", "slice_dice")  # scores that a tracked run keeps


@dataclass(frozen=True)
class Publication:
    """What was published."""

    folder: Path
    spec: ModelSpec
    scores: tuple[Scores, ...]  # on test patients


def publish(trainer: Trainer, repository: Path, *, command: str, say: Callable[[str], None]) -> Publication:
    """Calibrate the trained network on validation patients, score it on test patients and export it.

    Args:
        trainer: restored to the checkpoint to publish.
        repository: folder of the model's versions; the next number is taken.
        command: that made the model, for the card.
        say: takes lines for the person who waits.

    Raises:
        ConfigError: a source is not what it claims, or a patient stands in two of training, validation and test.
    """
    settings = trainer.settings
    splits = {"source": settings.source, "validation": settings.validation, "test": settings.test}
    refuse_leaks({split: patients_of(convert_sources(settings, of_split, say)) for split, of_split in splits.items()})
    served = fold_normalisation(trainer.network, settings.network, (settings.grid.rows, settings.grid.columns))
    validated = _evaluated(settings, settings.validation, served, say)
    calibration, operating_point = calibrate([result for results in validated for result in results])
    spec = ModelSpec(
        name=settings.name,
        rows=settings.grid.rows,
        columns=settings.grid.columns,
        spacing_mm=settings.grid.spacing_mm,
        context=settings.network.context,
        operating_point=operating_point,
        calibration=calibration,
        training_data_sha256=data_sha256(folder for _, folder in trainer.converted),
        code_version=code_version(),
    )
    tested = tuple(scores_of(results, spec) for results in _evaluated(settings, settings.test, served, say))
    folder = export_model(served, spec, repository, next_version(repository))
    making = Making(
        steps=int(trainer.step.numpy()),
        seconds=_seconds(settings.folder),
        bleeding_patients=_bleeding_patients(trainer),
        command=command,
    )
    scores = {"validation": tuple(scores_of(results, spec) for results in validated), "test": tested}
    card = card_text(spec, settings, making, version=int(folder.name), tested=tested, validated=scores["validation"])
    _replace(folder.parent / "README.md", card)
    _replace(folder.parent / "scores.json", _scores_json(scores))
    _track(settings, spec, folder, tested, say)
    return Publication(folder, spec, tested)


def _track(
    settings: RunSettings, spec: ModelSpec, folder: Path, tested: Sequence[Scores], say: Callable[[str], None]
) -> None:
    """Keep the version, its card and its scores with the tracked run that made it."""
    run = TrackedRun(settings, spec.training_data_sha256, say)
    run.keep(folder, f"model/{folder.name}")
    run.keep(folder.parent / "README.md", "model")
    figures = [(f"test/{score.source}/{name}", getattr(score, name).value, 0) for score in tested for name in TRACKED]
    run.log([*figures, *((f"test/{score.source}/brier", score.brier, 0) for score in tested)])
    run.end("finished")


def code_version() -> str:
    """Give the version of this code."""
    try:
        return version("ich-triage")
    except PackageNotFoundError:
        return "unknown"


def _evaluated(
    settings: RunSettings, sources: Sequence[SourceSettings], served: keras.Model, say: Callable[[str], None]
) -> list[list[StudyResult]]:
    """Evaluate each source's scans."""
    network = array_network(served)
    evaluated = []
    for source, folder in convert_sources(settings, tuple(sources), say):
        results = evaluate_scans(read_scans(folder), network, settings.network.context)
        say(f"source {source.kind}: {len(results)} scans read")
        evaluated.append(results)
    return evaluated


def _seconds(run: Path) -> float:
    """Give what the steps of a run took together; nan where it kept no record."""
    try:
        return sum(step["seconds"] for step in read_run(run).steps)
    except ConfigError:
        return float("nan")


def _bleeding_patients(trainer: Trainer) -> int:
    """Count the patients whose own blood training saw: none is drawn, none pasted."""
    return len(
        {
            (scan.source, scan.patient)
            for source, folder in trainer.converted
            if source.kind not in ("phantom", "pasted")
            for scan in read_scans(folder)
            if scan.bleed
        }
    )


def _scores_json(scores: dict[str, tuple[Scores, ...]]) -> str:
    rows = [{"split": split, **score.as_json()} for split, of_split in scores.items() for score in of_split]
    return json.dumps(rows, indent=1) + "\n"


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text)
    beside.replace(path)
