"""Between the ledger's rows and the types of `triage.study`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from triage.errors import StoreError
from triage.study import NEXT_STATES, Instance, NotAnalysedReason, PatientHeader, ReadingState, Study, StudyState

Row = Mapping[str, Any]

_HEADER_FIELDS = tuple(field.name for field in fields(PatientHeader))
INSTANCE_COLUMNS = tuple(field.name for field in fields(Instance))
_STUDY_FIELDS = tuple(field.name for field in fields(Study) if field.name != "header")


def study_from(row: Row) -> Study:
    """Build a Study from a row of `studies`."""
    values = {name: row[name] for name in _STUDY_FIELDS}
    values["state"] = StudyState(row["state"])
    values["reason"] = NotAnalysedReason(row["reason"]) if row["reason"] else None
    values["partial"] = bool(row["partial"])
    values["reading_state"] = ReadingState(row["reading_state"])
    header = PatientHeader(**{name: row[name] or "" for name in _HEADER_FIELDS})
    return Study(header=header, **values)


def instance_row(instance: Instance) -> list[Any]:
    """Give the row of `instances` for an Instance, in the order of `INSTANCE_COLUMNS`."""
    row = dict(vars(instance))  # asdict copies deeply, 0.2 ms an image
    row["path"] = instance.path.as_posix()
    row["image_type"] = "\\".join(instance.image_type)
    row["image_position_mm"] = _numbers_text(instance.image_position_mm)
    row["image_orientation"] = _numbers_text(instance.image_orientation)
    return [row[name] for name in INSTANCE_COLUMNS]


def instance_from(row: Row) -> Instance:
    """Build an Instance from a row of `instances`."""
    values = dict(row)
    values["path"] = Path(row["path"])
    values["image_type"] = tuple(row["image_type"].split("\\")) if row["image_type"] else ()
    position = json.loads(row["image_position_mm"]) if row["image_position_mm"] else None
    values["image_position_mm"] = tuple(position) if position else None
    orientation = json.loads(row["image_orientation"]) if row["image_orientation"] else None
    values["image_orientation"] = tuple(orientation) if orientation else None
    return Instance(**values)


def next_change(db: Database) -> int:
    """Give the number of the next write to a study; call inside a write transaction."""
    return int(db.execute("SELECT COALESCE(MAX(change), 0) + 1 FROM studies").fetchone()[0])


def record_event(
    db: Database, study_instance_uid: str, kind: str, *, now: float, actor: str = "", detail: str = ""
) -> None:
    """Add one line to a study's history; call inside a write transaction."""
    db.execute(
        "INSERT INTO events (study_instance_uid, at, kind, actor, detail) VALUES (?, ?, ?, ?, ?)",
        [study_instance_uid, now, kind, actor, detail],
    )


def update_study(db: Database, study_instance_uid: str, **values: Any) -> None:
    """Set columns of one study and count the change; call inside a write transaction."""
    values["change"] = next_change(db)
    assignments = ", ".join(f"{name} = ?" for name in values)
    # Column names come from this package's keywords, never from outside.
    db.execute(
        f"UPDATE studies SET {assignments} WHERE study_instance_uid = ?",  # noqa: S608
        [*values.values(), study_instance_uid],
    )


def move_study(db: Database, study_instance_uid: str, state: StudyState, **values: Any) -> None:
    """Take a study to another state, by the table of allowed transitions; call inside a write transaction.

    Raises:
        StoreError: the table does not allow it; a fault of the caller.
    """
    row = db.execute("SELECT state FROM studies WHERE study_instance_uid = ?", [study_instance_uid]).fetchone()
    if row is None or state not in NEXT_STATES[StudyState(row[0])]:
        found = "an unknown study" if row is None else row[0]
        raise StoreError(f"No study goes from {found} to {state.value}.")
    update_study(db, study_instance_uid, state=state.value, **values)


def _numbers_text(numbers: tuple[float, ...] | None) -> str | None:
    return None if numbers is None else f"[{', '.join(map(repr, numbers))}]"  # JSON, a tenth of json.dumps' time
