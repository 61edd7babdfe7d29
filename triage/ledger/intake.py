"""What the listener writes: instances, completed studies, and what had to be kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from triage.ledger.connection import Ledger
from triage.ledger.rows import (
    INSTANCE_COLUMNS,
    instance_from,
    instance_row,
    move_study,
    next_change,
    record_event,
    study_from,
    update_study,
)
from triage.study import Instance, PatientHeader, ReadingState, Study, StudyState

_ADD_INSTANCE = (
    f"INSERT INTO instances ({', '.join(INSTANCE_COLUMNS)}) VALUES ({', '.join('?' * len(INSTANCE_COLUMNS))})"  # noqa: S608
    " ON CONFLICT (sop_instance_uid) DO NOTHING"
)


# the usual case in one statement: an image more of a study that is growing and that nobody has read
_GROW_STUDY = (
    "UPDATE studies SET instance_count = instance_count + ?, last_image_at = ?,"  # noqa: S608 - names of states
    " change = (SELECT MAX(change) + 1 FROM studies)"
    f" WHERE study_instance_uid = ? AND state = '{StudyState.RECEIVING.value}'"
    f" AND reading_state <> '{ReadingState.READ.value}'"
)


class Registered(Enum):
    """What became of one received instance."""

    NEW = "new"
    DUPLICATE = "duplicate"  # the same bytes again: nothing to do
    CONFLICT = "conflict"  # a known SOP Instance UID with other bytes, or under another study: kept apart


@dataclass(frozen=True)
class Received:
    """One instance on disk, with what its header says of patient and study."""

    instance: Instance
    header: PatientHeader
    priority: str = "routine"


@dataclass(frozen=True)
class Quarantined:
    """Data on disk that could not be taken as an instance."""

    path: Path  # below the storage folder
    size_bytes: int
    received_at: float
    calling_ae_title: str
    status: int  # the C-STORE status answered, PS3.4 Table B.2-1
    reason: str


class Intake:
    """The listener's side of the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def register(self, received: Sequence[Received], *, now: float) -> list[Registered]:
        """Record instances whose files are already durable, all in one commit; the order is kept.

        A new instance opens its study, or re-opens it if it had gone on: the study returns to `receiving`, its
        revision counts up, and a worker that still runs it has lost its lease.

        Raises:
            StoreError: nothing of it was recorded; answer 0xA700 and let the sender try again.
        """
        with self._ledger.transaction() as db:
            results = [_register_one(db, item, now=now) for item in received]
            _grow_studies(db, [item for item, result in zip(received, results, strict=True)
                               if result is Registered.NEW], now=now)  # fmt: skip
            return results

    def known_paths(self, paths: Sequence[Path]) -> set[Path]:
        """Give those of `paths` (below the storage folder) that a row of instances or conflicts names."""
        db = self._ledger.db
        wanted = [path.as_posix() for path in paths]
        known: set[Path] = set()
        for start in range(0, len(wanted), 500):  # SQLite takes 32,766 variables at most; 500 keeps the plan small
            chunk = wanted[start : start + 500]
            marks = ",".join("?" * len(chunk))
            for table in ("instances", "conflicts"):
                rows = db.execute(f"SELECT path FROM {table} WHERE path IN ({marks})", chunk)  # noqa: S608
                known.update(Path(row[0]) for row in rows)
        return known

    def kept_apart(self) -> tuple[int, int]:
        """Give how many objects are in quarantine, and how many images came under a known UID with other content."""
        row = self._ledger.db.execute("SELECT (SELECT COUNT(*) FROM quarantine), (SELECT COUNT(*) FROM conflicts)")
        quarantined, conflicting = row.fetchone()
        return int(quarantined), int(conflicting)

    def receiving(self) -> list[Study]:
        """Give the studies that are still growing, oldest first."""
        rows = self._ledger.db.query(
            "SELECT * FROM studies WHERE state = ? ORDER BY first_image_at", [StudyState.RECEIVING.value]
        )
        return [study_from(row) for row in rows]

    def instances_of(self, study_instance_uid: str) -> list[Instance]:
        """Give all instances of a study in order of arrival."""
        rows = self._ledger.db.query(
            "SELECT * FROM instances WHERE study_instance_uid = ? ORDER BY rowid", [study_instance_uid]
        )
        return [instance_from(row) for row in rows]

    def complete(
        self, study_instance_uid: str, *, instance_count: int, completed_by: str, now: float, partial: bool = False
    ) -> bool:
        """Queue a study for analysis, unless images came since `instance_count` was seen.

        Args:
            study_instance_uid: the study.
            instance_count: how many instances the evidence was drawn from.
            completed_by: the evidence: "geometry", "counts", "silence" or "cap".
            now: seconds since the epoch.
            partial: it goes on without evidence that it is whole.

        Returns:
            False if the study has grown or gone on meanwhile; look again.
        """
        with self._ledger.transaction() as db:
            row = db.execute(
                "SELECT 1 FROM studies WHERE study_instance_uid = ? AND state = ? AND instance_count = ?",
                [study_instance_uid, StudyState.RECEIVING.value, instance_count],
            ).fetchone()
            if row is None:
                return False
            move_study(
                db,
                study_instance_uid,
                StudyState.QUEUED,
                complete_at=now,
                queued_at=now,
                completed_by=completed_by,
                partial=int(partial),
                attempts=0,
                not_before=None,
            )
            record_event(db, study_instance_uid, "complete", now=now, detail=completed_by)
            return True

    def quarantine(self, item: Quarantined) -> None:
        """Record data that was kept but could not be taken as an instance; the same content again is no new row."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO quarantine (path, size_bytes, received_at, calling_ae_title, status, reason)"
                " SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM quarantine WHERE path = ?)",
                [
                    item.path.as_posix(),
                    item.size_bytes,
                    item.received_at,
                    item.calling_ae_title,
                    item.status,
                    item.reason,
                    item.path.as_posix(),
                ],
            )


def _register_one(db: Database, received: Received, *, now: float) -> Registered:
    instance = received.instance
    if db.execute(_ADD_INSTANCE, instance_row(instance)).rowcount:
        return Registered.NEW
    known = db.execute(
        "SELECT blake3, study_instance_uid FROM instances WHERE sop_instance_uid = ?", [instance.sop_instance_uid]
    ).fetchone()
    if known == (instance.blake3, instance.study_instance_uid):
        return Registered.DUPLICATE
    return _keep_apart(db, instance, now=now)


def _grow_studies(db: Database, added: Sequence[Received], *, now: float) -> None:
    """Count new instances to their studies, once a study however many of its instances share the commit."""
    studies: dict[str, list[Received]] = {}
    for received in added:
        studies.setdefault(received.instance.study_instance_uid, []).append(received)
    for uid, new in studies.items():
        _grow_study(db, uid, new, now=now)


def _grow_study(db: Database, uid: str, added: Sequence[Received], *, now: float) -> None:
    if db.execute(_GROW_STUDY, [len(added), added[-1].instance.received_at, uid]).rowcount:
        return
    row = db.execute(
        "SELECT state, revision, fence, instance_count, reading_state FROM studies WHERE study_instance_uid = ?", [uid]
    ).fetchone()
    if row is None:
        _open_study(db, added)
        return
    state, revision, fence, count, reading_state = row
    # last_image_at is the arrival of the newest instance, not the commit: what a waiting time is measured from
    grown: dict[str, Any] = {"instance_count": count + len(added), "last_image_at": added[-1].instance.received_at}
    if reading_state == ReadingState.READ.value:  # nobody has read these images yet
        grown |= {"reading_state": ReadingState.UNREAD.value, "claimed_by": "", "claimed_at": None}
    if state == StudyState.RECEIVING.value:
        update_study(db, uid, **grown)
        return
    move_study(
        db,
        uid,
        StudyState.RECEIVING,
        **grown,
        revision=revision + 1,
        fence=fence + 1,  # a worker that still runs it finds its lease lost
        lease_owner=None,
        lease_expires_at=None,
        reason=None,
        detail="",
        complete_at=None,
        queued_at=None,
        started_at=None,
        found_at=None,
    )
    record_event(db, uid, "reopened", now=now, detail=f"late image while {state}")


def _open_study(db: Database, added: Sequence[Received]) -> None:
    received, instance = added[0], added[0].instance
    values = {
        "study_instance_uid": instance.study_instance_uid,
        "state": StudyState.RECEIVING.value,
        "change": next_change(db),
        "instance_count": len(added),
        "first_image_at": instance.received_at,
        "last_image_at": added[-1].instance.received_at,
        "calling_ae_title": instance.calling_ae_title,
        "called_ae_title": instance.called_ae_title,
        "priority": received.priority,
        **asdict(received.header),
    }
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO studies ({names}) VALUES ({marks})", list(values.values()))  # noqa: S608
    record_event(db, instance.study_instance_uid, "first_image", now=instance.received_at)


def _keep_apart(db: Database, instance: Instance, *, now: float) -> Registered:
    added = db.execute(
        "INSERT OR IGNORE INTO conflicts (sop_instance_uid, study_instance_uid, path, size_bytes, blake3,"
        " received_at, calling_ae_title) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            instance.sop_instance_uid,
            instance.study_instance_uid,
            instance.path.as_posix(),
            instance.size_bytes,
            instance.blake3,
            instance.received_at,
            instance.calling_ae_title,
        ],
    ).rowcount
    if added:
        record_event(
            db, instance.study_instance_uid, "conflict", now=now, detail="a known SOP Instance UID with other content"
        )
    return Registered.CONFLICT
