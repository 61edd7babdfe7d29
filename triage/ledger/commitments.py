"""Storage commitments: what senders have asked for, and whether they have been told (PS3.4 Annex J)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triage.ledger.connection import Ledger


@dataclass(frozen=True)
class Reference:
    """One instance that a sender asks about; failure is PS3.4 Table J.3-2's reason, 0 if it is kept."""

    sop_class_uid: str
    sop_instance_uid: str
    failure: int = 0


@dataclass(frozen=True)
class Commitment:
    """One transaction."""

    commitment_id: int
    transaction_uid: str
    ae_title: str  # of the sender
    host: str
    references: tuple[Reference, ...]
    attempts: int
    requested_at: float


class Commitments:
    """The listener's list of what is to be told."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def kept(self, sop_instance_uids: Sequence[str]) -> dict[str, tuple[str, Path]]:
        """Give SOP class and path of those instances that the ledger has."""
        found: dict[str, tuple[str, Path]] = {}
        for start in range(0, len(sop_instance_uids), 500):
            chunk = list(sop_instance_uids[start : start + 500])
            marks = ",".join("?" * len(chunk))
            rows = self._ledger.db.execute(
                f"SELECT sop_instance_uid, sop_class_uid, path FROM instances WHERE sop_instance_uid IN ({marks})",  # noqa: S608
                chunk,
            )
            found.update({uid: (sop_class, Path(path)) for uid, sop_class, path in rows})
        return found

    def add(
        self, transaction_uid: str, *, ae_title: str, host: str, references: Sequence[Reference], now: float
    ) -> None:
        """Note what a sender is to be told."""
        text = json.dumps([[item.sop_class_uid, item.sop_instance_uid, item.failure] for item in references])
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO commitments (transaction_uid, ae_title, host, result, attempts, requested_at, next_at)"
                " VALUES (?, ?, ?, ?, 0, ?, ?)",
                [transaction_uid, ae_title, host, text, now, now],
            )

    def due(self, *, now: float) -> list[Commitment]:
        """Give what is to be told now, oldest first."""
        rows = self._ledger.db.query(
            "SELECT * FROM commitments WHERE told_at IS NULL AND gave_up_at IS NULL AND next_at <= ?"
            " ORDER BY commitment_id LIMIT 50",
            [now],
        )
        return [
            Commitment(
                commitment_id=row["commitment_id"],
                transaction_uid=row["transaction_uid"],
                ae_title=row["ae_title"],
                host=row["host"],
                references=tuple(Reference(*item) for item in json.loads(row["result"])),
                attempts=row["attempts"],
                requested_at=row["requested_at"],
            )
            for row in rows
        ]

    def told(self, commitment: Commitment, *, now: float) -> None:
        """Note that the sender has confirmed."""
        self._set(commitment, "told_at", now)

    def gave_up(self, commitment: Commitment, *, now: float) -> None:
        """Note that the sender could not be told in time."""
        self._set(commitment, "gave_up_at", now)

    def try_again(self, commitment: Commitment, *, at: float) -> None:
        """Note an attempt that failed."""
        with self._ledger.transaction() as db:
            db.execute(
                "UPDATE commitments SET attempts = attempts + 1, next_at = ? WHERE commitment_id = ?",
                [at, commitment.commitment_id],
            )

    def waiting_count(self) -> int:
        """Give how many senders are still to be told."""
        sql = "SELECT COUNT(*) FROM commitments WHERE told_at IS NULL AND gave_up_at IS NULL"
        return int(self._ledger.db.execute(sql).fetchone()[0])

    def _set(self, commitment: Commitment, column: str, now: float) -> None:
        with self._ledger.transaction() as db:
            db.execute(
                f"UPDATE commitments SET {column} = ? WHERE commitment_id = ?",  # noqa: S608 - one of two names above
                [now, commitment.commitment_id],
            )
