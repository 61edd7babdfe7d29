"""Reading the ledger: studies, their instances, analyses and history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from triage.finding import Component, Finding, OperatingPoint, SeriesChoice
from triage.ledger.connection import Ledger
from triage.ledger.rows import Row, instance_from, study_from
from triage.study import Instance, NotAnalysedReason, Study, StudyState


@dataclass(frozen=True)
class Analysis:
    """One run's result; `superseded` once a later run of the study has ended."""

    analysis_id: int
    revision: int
    at: float
    outcome: StudyState
    superseded: bool
    reason: NotAnalysedReason | None
    detail: str
    finding: Finding | None
    series_choices: tuple[SeriesChoice, ...]


@dataclass(frozen=True)
class Event:
    """One line of a study's history."""

    at: float
    kind: str
    actor: str
    detail: str


@dataclass(frozen=True)
class WorkerReport:
    """What one worker last said of itself and of its model."""

    owner: str
    seen_at: float
    model_available: bool
    detail: str


@dataclass(frozen=True)
class Conflict:
    """An image that came under a known SOP Instance UID with other content; the first one counts."""

    received_at: float
    calling_ae_title: str
    size_bytes: int
    study_id: int | None


class Studies:
    """Read-only view of the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def all(self) -> list[Study]:
        """Give every study ever received, oldest first."""
        return [study_from(row) for row in self._ledger.db.query("SELECT * FROM studies ORDER BY first_image_at")]

    def by_id(self, study_id: int) -> Study | None:
        """Give the study with our number, or None."""
        return self._one("study_id", study_id) if study_id < 2**63 else None  # SQLite's integers end there

    def by_uid(self, study_instance_uid: str) -> Study | None:
        """Give the study with a Study Instance UID, or None."""
        return self._one("study_instance_uid", study_instance_uid)

    def counts(self) -> dict[StudyState, int]:
        """Give how many studies stand in each state; their sum is all that were ever received."""
        rows = dict(self._ledger.db.execute("SELECT state, COUNT(*) FROM studies GROUP BY state").fetchall())
        return {state: rows.get(state.value, 0) for state in StudyState}

    def instances_of(self, study_instance_uid: str) -> list[Instance]:
        """Give all instances of a study in order of arrival."""
        rows = self._ledger.db.query(
            "SELECT * FROM instances WHERE study_instance_uid = ? ORDER BY rowid", [study_instance_uid]
        )
        return [instance_from(row) for row in rows]

    def instance_count(self) -> int:
        """Give how many instances were ever received."""
        return int(self._ledger.db.execute("SELECT COUNT(*) FROM instances").fetchone()[0])

    def analyses_of(self, study_instance_uid: str) -> list[Analysis]:
        """Give all analyses of a study, newest first; at most the first is not superseded."""
        rows = self._ledger.db.query(
            "SELECT * FROM analyses WHERE study_instance_uid = ? ORDER BY analysis_id DESC", [study_instance_uid]
        )
        return [_analysis_from(row) for row in rows]

    def current_analysis(self, study_instance_uid: str) -> Analysis | None:
        """Give the analysis that counts, or None before the first one has ended."""
        rows = self._ledger.db.query(
            "SELECT * FROM analyses WHERE study_instance_uid = ? AND superseded = 0", [study_instance_uid]
        )
        row = next(iter(rows), None)
        return None if row is None else _analysis_from(row)

    def events_of(self, study_instance_uid: str) -> list[Event]:
        """Give a study's history, oldest first."""
        rows = self._ledger.db.query(
            "SELECT at, kind, actor, detail FROM events WHERE study_instance_uid = ? ORDER BY event_id",
            [study_instance_uid],
        )
        return [Event(**row) for row in rows]

    def quarantined_count(self) -> int:
        """Give how many objects were kept that could not be taken as instances."""
        return int(self._ledger.db.execute("SELECT COUNT(*) FROM quarantine").fetchone()[0])

    def conflict_count(self, study_instance_uid: str | None = None) -> int:
        """Give how many images came under a known UID with other content, in one study or in all."""
        where, values = (
            ("", []) if study_instance_uid is None else (" WHERE study_instance_uid = ?", [study_instance_uid])
        )
        return int(self._ledger.db.execute(f"SELECT COUNT(*) FROM conflicts{where}", values).fetchone()[0])  # noqa: S608

    def conflicts(self, *, newest: int) -> list[Conflict]:
        """Give the newest images that came under a known UID with other content."""
        rows = self._ledger.db.query(
            "SELECT received_at, conflicts.calling_ae_title, size_bytes, study_id FROM conflicts"
            " LEFT JOIN studies USING (study_instance_uid) ORDER BY conflict_id DESC LIMIT ?",
            [newest],
        )
        return [Conflict(**row) for row in rows]

    def workers(self) -> list[WorkerReport]:
        """Give what each worker last reported; a worker reports every few seconds while it lives."""
        rows = self._ledger.db.query("SELECT owner, seen_at, model_available, detail FROM workers ORDER BY owner")
        return [
            WorkerReport(row["owner"], row["seen_at"], bool(row["model_available"]), row["detail"] or "")
            for row in rows
        ]

    def _one(self, column: str, value: Any) -> Study | None:
        rows = self._ledger.db.query(f"SELECT * FROM studies WHERE {column} = ?", [value])  # noqa: S608
        row = next(iter(rows), None)
        return None if row is None else study_from(row)


def finding_from(finding: str, series_choices: tuple[SeriesChoice, ...]) -> Finding:
    """Read a finding that `work.finding_json` wrote."""
    values = json.loads(finding)
    values["operating_point"] = OperatingPoint(**values["operating_point"])
    values["components"] = tuple(
        Component(item["volume_ml"], item["largest_probability"], tuple(item["slab_range"]))
        for item in values["components"]
    )
    values["key_slabs"] = tuple(values["key_slabs"])
    return Finding(series_choices=series_choices, **values)


def choices_from(text: str | None) -> tuple[SeriesChoice, ...]:
    """Read the series choices that `work.choices_json` wrote."""
    choices = []
    for values in json.loads(text) if text else []:
        values["reason"] = NotAnalysedReason(values["reason"]) if values["reason"] else None
        choices.append(SeriesChoice(**values))
    return tuple(choices)


def _analysis_from(row: Row) -> Analysis:
    choices = choices_from(row["series_choices"])
    return Analysis(
        analysis_id=row["analysis_id"],
        revision=row["revision"],
        at=row["at"],
        outcome=StudyState(row["outcome"]),
        superseded=bool(row["superseded"]),
        reason=NotAnalysedReason(row["reason"]) if row["reason"] else None,
        detail=row["detail"] or "",
        finding=finding_from(row["finding"], choices) if row["finding"] else None,
        series_choices=choices,
    )
