"""The command `opinions`: gives what readers say of results to training."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from triage.errors import TriageError
from triage.ledger.feedback import Feedback
from triage.ledger.studies import Studies
from worklist_ui import secret_key
from worklist_ui.command_line import config_option, failure, ledger_of, settings_of
from worklist_ui.opinions import StudyLabel, labels_of, pseudonym

TABLE = "opinions.jsonl"


@click.group("opinions")
def opinions() -> None:
    """Give readers' opinions of results to training."""


@opinions.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@config_option
def export(folder: Path, config: Path | None) -> None:
    """Write FOLDER/opinions.jsonl: one study a line, what its readers say, and where the images that were read lie.

    Studies, patients and readers stand under keys that only this site can resolve; notes in words are left out. The
    images stay where they are, with the patient in their headers. `kind = "opinions"` of a training run reads it.

    Example: ich-triage opinions export var/opinions
    """
    settings = settings_of(config)
    ledger = ledger_of(settings)
    try:
        key = secret_key.read_or_make(settings.storage.folder)
        studies, labels = Studies(ledger), labels_of(Feedback(ledger).judged())
        folder.mkdir(parents=True, exist_ok=True)
        lines = [_line(label, key, _images(studies, label, settings.storage.folder, folder)) for label in labels]
        _write(folder / TABLE, lines)
    except TriageError as error:
        raise failure(error) from error
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror}.") from error
    finally:
        ledger.close()
    sure = sum(label.bleed is not None for label in labels)
    click.echo(f"{len(labels)} studies with opinions, {sure} of them with a sure label: {folder / TABLE}")


def _images(studies: Studies, label: StudyLabel, storage: Path, folder: Path) -> list[str]:
    """Name the images that were read, as seen from the table: both may be moved together."""
    read = label.newest
    return [
        os.path.relpath(storage / instance.path, folder)
        for instance in studies.instances_of(read.study_instance_uid)
        if instance.series_instance_uid == read.series_instance_uid
    ]


def _line(label: StudyLabel, key: bytes, images: list[str]) -> dict[str, Any]:
    read = label.newest
    return {
        "study": pseudonym(key, "study", read.study_instance_uid),
        "patient": pseudonym(key, "patient", read.patient_id or read.study_instance_uid),
        "bleed": label.bleed,
        "flagged": read.flagged,
        "probability": read.probability,
        "model": read.model_name,
        "model_version": read.model_version,
        "opinions": [
            {
                "reader": pseudonym(key, "reader", item.opinion.reader),
                "at": datetime.fromtimestamp(item.opinion.at, UTC).isoformat(timespec="seconds"),
                "agrees": item.opinion.agrees,
                "reason": item.opinion.reason,
            }
            for item in label.judged
        ],
        "images": images,
    }


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    half = path.with_name(f"{path.name}.part")
    half.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    half.replace(path)  # a run that reads meanwhile sees the old table or the new one
