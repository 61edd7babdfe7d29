"""The audit trail: who saw or did what with which patient.

Rows are only ever added; the table refuses anything else. Each row's seal is the SHA-256 of the row before's seal and
its own content, so a row that was changed, taken out or put in between breaks the chain from there on. Rows
cut off at the end leave a whole chain: keep the last seal elsewhere, and check against it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from sqlite_utils import Database

from triage.ledger.connection import Ledger
from triage.ledger.rows import Row

FIRST_SEAL = "0" * 64  # what stands before the first row
_CONTENT = ("at", "actor", "role", "action", "outcome", "peer_host", "study_instance_uid", "patient_id", "detail")


@dataclass(frozen=True)
class Deed:
    """What somebody did, or tried to do."""

    actor: str  # account; empty: somebody who was not signed in
    action: str
    outcome: int  # HTTP status of the answer: below 400 it was done
    role: str = ""
    peer_host: str = ""
    study_instance_uid: str = ""
    patient_id: str = ""
    detail: str = ""


@dataclass(frozen=True)
class AuditRecord:
    """One row of the trail."""

    audit_id: int
    at: float
    deed: Deed
    seal: str


@dataclass(frozen=True)
class Verdict:
    """What checking the chain found."""

    rows: int  # that were checked and are whole
    last_seal: str
    broken_at: int | None = None  # audit_id of the first row that does not fit
    broken_because: str = ""


class AuditTrail:
    """The audit trail in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, deed: Deed, *, now: float) -> None:
        """Seal one deed into the trail.

        Raises:
            StoreError: it could not be kept; what it tells of must not be answered.
        """
        with self._ledger.transaction() as db:
            before = _last(db)
            audit_id = 1 if before is None else before["audit_id"] + 1
            content = {"at": now, **asdict(deed)}
            values = {
                "audit_id": audit_id,
                **content,
                "seal": seal_of(FIRST_SEAL if before is None else before["seal"], audit_id, content),
            }
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO audit_trail ({', '.join(values)}) VALUES ({marks})", list(values.values()))  # noqa: S608

    def records(
        self, *, since: float = 0.0, actor: str = "", patient_id: str = "", newest: int | None = None
    ) -> Iterator[AuditRecord]:
        """Give rows in order; those of one actor or patient; only the `newest` so many, newest first."""
        sql = "SELECT * FROM audit_trail WHERE at >= :since"
        sql += " AND actor = :actor" if actor else ""
        sql += " AND patient_id = :patient_id" if patient_id else ""
        sql += " ORDER BY audit_id" if newest is None else " ORDER BY audit_id DESC LIMIT :newest"
        values = {"since": since, "actor": actor, "patient_id": patient_id, "newest": newest}
        for row in self._ledger.db.query(sql, values):
            yield _record_from(row)

    def verify(self) -> Verdict:
        """Check every row's number and seal, from the first on."""
        seal, rows = FIRST_SEAL, 0
        for row in self._ledger.db.query("SELECT * FROM audit_trail ORDER BY audit_id"):
            if row["audit_id"] != rows + 1:
                return Verdict(rows, seal, row["audit_id"], f"row {rows + 1} is missing before it")
            if row["seal"] != seal_of(seal, row["audit_id"], {name: row[name] for name in _CONTENT}):
                return Verdict(
                    rows, seal, row["audit_id"], "its content does not fit its seal, or the row before was changed"
                )
            seal, rows = row["seal"], rows + 1
        return Verdict(rows, seal)

    def has_seal(self, seal: str) -> bool:
        """Say whether a seal that was noted earlier is still in the trail."""
        found = self._ledger.db.execute("SELECT 1 FROM audit_trail WHERE seal = ?", [seal]).fetchone()
        return found is not None


def seal_of(before: str, audit_id: int, content: dict[str, object]) -> str:
    """Give a row's seal: SHA-256 over the seal before, the number and the content in one fixed spelling."""
    text = json.dumps(
        [before, audit_id, [content[name] for name in _CONTENT]], ensure_ascii=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _last(db: Database) -> Row | None:
    return next(iter(db.query("SELECT audit_id, seal FROM audit_trail ORDER BY audit_id DESC LIMIT 1")), None)


def _record_from(row: Row) -> AuditRecord:
    deed = Deed(**{name: row[name] for name in _CONTENT if name != "at"})
    return AuditRecord(row["audit_id"], row["at"], deed, row["seal"])
