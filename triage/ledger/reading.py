"""What readers do: claim, release, mark as read, undo, agree or disagree; and the list they do it from.

Each step names the revision that the reader saw. If images came meanwhile, or somebody else was faster, nothing is
done and the answer says why; a step sent twice is done once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlite_utils import Database

from triage.ledger.connection import Ledger
from triage.ledger.rows import Row, record_event, study_from, update_study
from triage.study import ReadingState, Study, StudyState


class Answer(Enum):
    """What became of a reader's step."""

    DONE = "done"
    ALREADY = "already"  # it had been done before, by the same reader
    TAKEN = "taken"  # another reader has the study
    CHANGED = "changed"  # images came since the reader saw it, or its reading state is another one
    GONE = "gone"  # there is no such study any more


@dataclass(frozen=True)
class Entry:
    """One line of the reading list: a study with the analysis that counts."""

    study: Study
    change: int
    flagged: bool | None  # by the current analysis; None without a finding
    probability: float | None
    volume_ml: float | None
    model_name: str
    model_version: int | None
    given_back: bool  # waits because the model was away when its turn came

    @property
    def urgent(self) -> bool:
        """Whether it belongs on top: a flag was raised, and a later analysis takes none away silently."""
        return self.study.flag_raised_at is not None

    @property
    def is_read(self) -> bool:
        """Whether it has left the open list."""
        return self.study.reading_state is ReadingState.READ


_ENTRIES = (
    "SELECT studies.*, analyses.flagged, analyses.probability, analyses.volume_ml, analyses.model_name,"
    " analyses.model_version FROM studies LEFT JOIN analyses"
    " ON analyses.study_instance_uid = studies.study_instance_uid AND analyses.superseded = 0"
    " AND analyses.revision = studies.revision"
)


class Reading:
    """The readers' side of the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def last_change(self) -> int:
        """Give the number of the newest change to any study: what a live list compares."""
        return int(self._ledger.db.execute("SELECT COALESCE(MAX(change), 0) FROM studies").fetchone()[0])

    def study_count(self) -> int:
        """Give how many studies there are."""
        return int(self._ledger.db.execute("SELECT COUNT(*) FROM studies").fetchone()[0])

    def entries(self, *, since: int = 0) -> list[Entry]:
        """Give the lines of the list that changed after `since`, in order of change."""
        rows = self._ledger.db.query(f"{_ENTRIES} WHERE studies.change > ? ORDER BY studies.change", [since])
        return [_entry_from(row) for row in rows]

    def entry(self, study_id: int) -> Entry | None:
        """Give one line of the list, or None."""
        rows = self._ledger.db.query(f"{_ENTRIES} WHERE studies.study_id = ?", [study_id])
        row = next(iter(rows), None)
        return None if row is None else _entry_from(row)

    def claim(self, study_id: int, reader: str, *, expires_before: float, now: float) -> Answer:
        """Take a study to read; a claim made before `expires_before` no longer counts."""
        with self._ledger.transaction() as db:
            study = _study(db, study_id)
            if study is None:
                return Answer.GONE
            if study.reading_state is ReadingState.READ:
                return Answer.CHANGED
            if _holder(study, expires_before, now) == reader:
                return Answer.ALREADY
            if _holder(study, expires_before, now):
                return Answer.TAKEN
            _step(
                db, study, "claimed", reader, now=now,
                reading_state=ReadingState.CLAIMED.value, claimed_by=reader, claimed_at=now,
            )  # fmt: skip
            return Answer.DONE

    def release(self, study_id: int, reader: str, *, now: float) -> Answer:
        """Give a claimed study back to all."""
        with self._ledger.transaction() as db:
            study = _study(db, study_id)
            if study is None:
                return Answer.GONE
            if study.reading_state is not ReadingState.CLAIMED:
                return Answer.ALREADY
            if study.claimed_by != reader:
                return Answer.TAKEN
            _step(db, study, "released", reader, now=now, **_UNREAD)
            return Answer.DONE

    def release_lapsed(self, *, expires_before: float, now: float) -> int:
        """Free the studies that were claimed before `expires_before` and not read; gives how many."""
        lapsed = "reading_state = 'claimed' AND claimed_at NOT BETWEEN ? AND ?"
        bounds = [expires_before, _latest(expires_before, now)]
        found = self._ledger.db.execute(f"SELECT 1 FROM studies WHERE {lapsed} LIMIT 1", bounds).fetchone()  # noqa: S608
        if found is None:  # the usual case, without a write
            return 0
        with self._ledger.transaction() as db:
            rows = list(db.query(f"SELECT * FROM studies WHERE {lapsed}", bounds))  # noqa: S608
            for row in rows:
                _step(db, study_from(row), "claim_lapsed", row["claimed_by"], now=now, **_UNREAD)
            return len(rows)

    def reassign(self, study_id: int, to: str, *, by: str, now: float) -> Answer:
        """Give an unread study to a reader, whoever has it now."""
        with self._ledger.transaction() as db:
            study = _study(db, study_id)
            if study is None:
                return Answer.GONE
            if study.reading_state is ReadingState.READ:
                return Answer.CHANGED
            if study.claimed_by == to and study.reading_state is ReadingState.CLAIMED:
                return Answer.ALREADY
            _step(
                db, study, "reassigned", by, now=now, detail=f"to {to}",
                reading_state=ReadingState.CLAIMED.value, claimed_by=to, claimed_at=now,
            )  # fmt: skip
            return Answer.DONE

    def mark_read(self, study_id: int, reader: str, *, revision: int, expires_before: float, now: float) -> Answer:
        """Take a study off the open list; refused when images came since `revision`, or another reader has it."""
        with self._ledger.transaction() as db:
            study = _study(db, study_id)
            if study is None:
                return Answer.GONE
            if study.reading_state is ReadingState.READ:
                return Answer.ALREADY if study.read_by == reader else Answer.TAKEN
            if study.revision != revision:
                return Answer.CHANGED
            if _holder(study, expires_before, now) not in ("", reader):
                return Answer.TAKEN
            _step(
                db, study, "read", reader, now=now,
                reading_state=ReadingState.READ.value, claimed_by="", claimed_at=None, read_by=reader, read_at=now,
            )  # fmt: skip
            return Answer.DONE

    def undo_read(self, study_id: int, reader: str, *, now: float) -> Answer:
        """Put a study back on the open list; only who marked it as read may."""
        with self._ledger.transaction() as db:
            study = _study(db, study_id)
            if study is None:
                return Answer.GONE
            if study.reading_state is not ReadingState.READ:
                return Answer.ALREADY
            if study.read_by != reader:
                return Answer.TAKEN
            _step(db, study, "read_undone", reader, now=now, read_by="", read_at=None, **_UNREAD)
            return Answer.DONE

    def note_opened(self, study_id: int, reader: str, *, now: float) -> None:
        """Note that a reader has opened a study; the first one sets `opened_at`."""
        with self._ledger.transaction() as db:
            study = _study(db, study_id)
            if study is None:
                return
            if study.opened_at is None:
                db.execute("UPDATE studies SET opened_at = ? WHERE study_id = ?", [now, study_id])
            record_event(db, study.study_instance_uid, "opened", now=now, actor=reader)

    def note_shown(self, study_ids: list[int], *, now: float) -> None:
        """Note when the result of each study first stood on somebody's list.

        The change counter stays: nobody's list looks different for it.
        """
        with self._ledger.transaction() as db:
            db.conn.executemany(
                "UPDATE studies SET shown_at = ? WHERE study_id = ? AND found_at IS NOT NULL"
                " AND (shown_at IS NULL OR shown_at < found_at)",
                [(now, study_id) for study_id in study_ids],
            )


_UNREAD: dict[str, Any] = {"reading_state": ReadingState.UNREAD.value, "claimed_by": "", "claimed_at": None}


def _study(db: Database, study_id: int) -> Study | None:
    row = next(iter(db.query("SELECT * FROM studies WHERE study_id = ?", [study_id])), None)
    return None if row is None else study_from(row)


def _holder(study: Study, expires_before: float, now: float) -> str:
    """Give who holds a claim that still counts, or an empty name."""
    if study.reading_state is not ReadingState.CLAIMED or study.claimed_at is None:
        return ""
    return study.claimed_by if expires_before <= study.claimed_at <= _latest(expires_before, now) else ""


def _latest(expires_before: float, now: float) -> float:
    """Give the latest time that a claim may bear: one from further ahead was made before the clock was set back."""
    return now + (now - expires_before)


def _step(db: Database, study: Study, kind: str, actor: str, *, now: float, detail: str = "", **values: Any) -> None:
    update_study(db, study.study_instance_uid, **values)
    record_event(db, study.study_instance_uid, kind, now=now, actor=actor, detail=detail)


def _entry_from(row: Row) -> Entry:
    waits = row["state"] in (StudyState.QUEUED.value, StudyState.RUNNING.value)
    return Entry(
        study=study_from(row),
        change=row["change"],
        flagged=None if row["flagged"] is None else bool(row["flagged"]),
        probability=row["probability"],
        volume_ml=row["volume_ml"],
        model_name=row["model_name"] or "",
        model_version=row["model_version"],
        given_back=waits and row["not_before"] is not None,
    )
