"""What a run leaves in its folder for people and for `compare`: settings, steps, validations and validated studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.evaluation import SCORE_ML, VOXEL_LINES, StudyResult
from training.settings import RunSettings
from triage.errors import ConfigError

SETTINGS_FILE, STEPS_FILE, VALIDATION_FILE, STUDIES_FILE = "run.json", "steps.jsonl", "validation.jsonl", "studies.json"
RECORD_FILES = (SETTINGS_FILE, STEPS_FILE, VALIDATION_FILE, STUDIES_FILE)
SCORE_INDEX, LINE_INDEX = SCORE_ML.index(1.0), VOXEL_LINES.index(0.5)


@dataclass(frozen=True)
class StudyFigures:
    """One validated study: its raw score, and the Dice of its slabs with blood."""

    source: str
    patient: str
    bleed: bool
    score: float
    slice_dice: tuple[float, ...]


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it."""

    name: str
    settings: dict[str, Any]
    steps: tuple[dict[str, float], ...]
    validations: tuple[dict[str, float], ...]
    studies: tuple[StudyFigures, ...]  # of the newest validation


def study_figures(results: Sequence[StudyResult]) -> list[StudyFigures]:
    """Give what is kept of validated studies."""
    return [
        StudyFigures(
            result.source,
            result.patient,
            result.bleed,
            result.scores[SCORE_INDEX],
            tuple(float(dice) for dice in result.slice_dice[LINE_INDEX]),
        )
        for result in results
    ]


def write_settings(settings: RunSettings) -> None:
    """Keep the settings beside what they made."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    (settings.folder / SETTINGS_FILE).write_text(settings.model_dump_json(indent=1) + "\n")


def write_studies(folder: Path, studies: Sequence[StudyFigures]) -> None:
    """Keep the studies of the newest validation."""
    (folder / STUDIES_FILE).write_text(json.dumps([asdict(study) for study in studies]) + "\n")


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        ConfigError: the folder holds no run that has finished a round.
    """
    for name in (SETTINGS_FILE, STEPS_FILE):
        if not (folder / name).exists():
            raise ConfigError(f"{folder} holds no run: it has no {name}.")
    studies = json.loads((folder / STUDIES_FILE).read_text()) if (folder / STUDIES_FILE).exists() else []
    return RunRecord(
        name=folder.name,
        settings=json.loads((folder / SETTINGS_FILE).read_text()),
        steps=tuple(
            {line["step"]: line for line in _lines(folder / STEPS_FILE)}.values()
        ),  # one that was run again counts once
        validations=tuple(_lines(folder / VALIDATION_FILE)),
        studies=tuple(StudyFigures(**{**study, "slice_dice": tuple(study["slice_dice"])}) for study in studies),
    )


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested settings by their dotted names; those of a list by its places."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat.update(flat_settings(value, f"{prefix}{key}."))
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            flat.update(flat_settings({str(place): item for place, item in enumerate(value)}, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
