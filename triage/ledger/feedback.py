"""What readers say of a result: agree, or disagree with a reason from a closed list.

An opinion belongs to one reader and one analysis. A later one of the same reader supersedes it; none is deleted, so
training can learn from them and nobody can rewrite them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlite_utils import Database

from triage.ledger.connection import Ledger
from triage.ledger.reading import Answer
from triage.ledger.rows import Row, record_event

LONGEST_NOTE = 500  # characters


class Disagreement(StrEnum):
    """Why a reader does not agree with the model."""

    ARTEFACT = "artefact"
    CALCIFICATION = "calcification"
    POST_OPERATIVE = "post_operative"
    TUMOUR = "tumour"
    CHRONIC = "chronic"
    MISSED_BLEED = "missed_bleed"
    OTHER = "other"


@dataclass(frozen=True)
class Opinion:
    """What one reader says of one analysis."""

    reader: str
    at: float
    agrees: bool
    reason: Disagreement | None
    note: str
    revision: int
    analysis_id: int


@dataclass(frozen=True)
class JudgedResult:
    """What one reader says of one result, on the images that the study has now."""

    study_instance_uid: str
    patient_id: str
    series_instance_uid: str  # that was read
    flagged: bool
    probability: float
    model_name: str
    model_version: int
    opinion: Opinion


class Feedback:
    """The readers' opinions in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def give(
        self, study_id: int, reader: str, *, revision: int, reason: Disagreement | None, note: str = "", now: float
    ) -> Answer:
        """Keep an opinion on the current analysis of a study.

        Args:
            study_id: the study.
            reader: whose opinion it is.
            revision: of the study that the reader saw.
            reason: why the reader disagrees; None: the reader agrees.
            note: in the reader's words.
            now: seconds since the epoch.

        Returns:
            CHANGED when images came since, or there is no finding to have an opinion on.
        """
        with self._ledger.transaction() as db:
            row = _analysis_row(db, study_id)
            if row is None:
                return Answer.GONE
            if row["analysis_id"] is None or row["revision"] != revision:
                return Answer.CHANGED
            note = note.strip()[:LONGEST_NOTE]
            if _same(_current(db, row, reader), reason, note):
                return Answer.ALREADY
            _supersede(db, row, reader)
            db.execute(
                "INSERT INTO feedback (study_instance_uid, revision, analysis_id, reader, at, agrees, reason, note)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [row["study_instance_uid"], revision, row["analysis_id"], reader, now, reason is None, reason, note],
            )
            kind = "agreed" if reason is None else "disagreed"
            record_event(db, row["study_instance_uid"], kind, now=now, actor=reader, detail=reason or "")
            return Answer.DONE

    def take_back(self, study_id: int, reader: str, *, now: float) -> Answer:
        """Withdraw a reader's opinion on the current analysis."""
        with self._ledger.transaction() as db:
            row = _analysis_row(db, study_id)
            if row is None:
                return Answer.GONE
            if row["analysis_id"] is None or _current(db, row, reader) is None:
                return Answer.ALREADY
            _supersede(db, row, reader)
            record_event(db, row["study_instance_uid"], "opinion_withdrawn", now=now, actor=reader)
            return Answer.DONE

    def opinions_on(self, study_instance_uid: str) -> list[Opinion]:
        """Give the opinions that count on a study, oldest first."""
        rows = self._ledger.db.query(
            "SELECT * FROM feedback WHERE study_instance_uid = ? AND superseded = 0 ORDER BY feedback_id",
            [study_instance_uid],
        )
        return [_opinion_from(row) for row in rows]

    def judged(self) -> list[JudgedResult]:
        """Give every opinion that counts, by study; those on a study that has other images since are left out."""
        rows = self._ledger.db.query(
            "SELECT feedback.*, studies.patient_id, analyses.flagged, analyses.probability, analyses.model_name,"
            " analyses.model_version, json_extract(analyses.finding, '$.series_instance_uid') AS series_instance_uid"
            " FROM feedback JOIN studies USING (study_instance_uid) JOIN analyses USING (analysis_id)"
            " WHERE feedback.superseded = 0 AND feedback.revision = studies.revision AND analyses.finding IS NOT NULL"
            " ORDER BY studies.study_id, feedback_id"
        )
        return [_judged_from(row) for row in rows]


def _analysis_row(db: Database, study_id: int) -> Row | None:
    """Give a study's row with the analysis that has a finding and counts, if there is one."""
    rows = db.query(
        "SELECT studies.study_instance_uid, studies.revision, analyses.analysis_id FROM studies"
        " LEFT JOIN analyses ON analyses.study_instance_uid = studies.study_instance_uid AND analyses.superseded = 0"
        " AND analyses.revision = studies.revision AND analyses.finding IS NOT NULL WHERE studies.study_id = ?",
        [study_id],
    )
    return next(iter(rows), None)


def _current(db: Database, row: Row, reader: str) -> Opinion | None:
    rows = db.query(
        "SELECT * FROM feedback WHERE analysis_id = ? AND reader = ? AND superseded = 0", [row["analysis_id"], reader]
    )
    found = next(iter(rows), None)
    return None if found is None else _opinion_from(found)


def _same(opinion: Opinion | None, reason: Disagreement | None, note: str) -> bool:
    return opinion is not None and (opinion.reason, opinion.note) == (reason, note)


def _supersede(db: Database, row: Row, reader: str) -> None:
    db.execute(
        "UPDATE feedback SET superseded = 1 WHERE analysis_id = ? AND reader = ? AND superseded = 0",
        [row["analysis_id"], reader],
    )


def _judged_from(row: Row) -> JudgedResult:
    return JudgedResult(
        study_instance_uid=row["study_instance_uid"],
        patient_id=row["patient_id"] or "",
        series_instance_uid=row["series_instance_uid"],
        flagged=bool(row["flagged"]),
        probability=row["probability"],
        model_name=row["model_name"],
        model_version=row["model_version"],
        opinion=_opinion_from(row),
    )


def _opinion_from(row: Row) -> Opinion:
    return Opinion(
        reader=row["reader"],
        at=row["at"],
        agrees=bool(row["agrees"]),
        reason=Disagreement(row["reason"]) if row["reason"] else None,
        note=row["note"] or "",
        revision=row["revision"],
        analysis_id=row["analysis_id"],
    )
