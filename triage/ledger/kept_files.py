"""The files that rows of the ledger name, and the data in quarantine: to be compared with what lies on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from triage.errors import StoreError
from triage.ledger.connection import Ledger

BATCH = 1000  # rows at a time: no long read holds up the write-ahead log's checkpoints


@dataclass(frozen=True)
class KeptFile:
    """One file; its path is made of hashes and tells nothing of a patient."""

    path: Path  # below the storage folder
    size_bytes: int  # of the data set, without the File Meta Information in front of it
    blake3: str  # of the data set
    study_id: int | None  # None: a conflict whose study has no row


@dataclass(frozen=True)
class QuarantinedObject:
    """Data that could not be taken as an instance."""

    quarantine_id: int
    path: Path  # below the storage folder
    size_bytes: int
    received_at: float
    calling_ae_title: str
    status: int  # the C-STORE status answered
    reason: str


def kept_files(path: Path) -> Iterator[list[KeptFile]]:
    """Give the files of all instances and conflicts in batches, over a connection that only reads.

    Args:
        path: the ledger's file; nothing in it is changed, whatever version wrote it.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=5.0)) as connection:
            connection.execute("PRAGMA query_only = 1")
            for table in ("instances", "conflicts"):
                yield from _batches(connection, table)
    except sqlite3.Error as error:
        raise StoreError(f"The ledger cannot be read: {type(error).__name__}: {error}.") from error


def _batches(connection: sqlite3.Connection, table: str) -> Iterator[list[KeptFile]]:
    seen = 0
    query = (
        f"SELECT kept.rowid, path, size_bytes, blake3, study_id FROM {table} AS kept"  # noqa: S608 - a name of ours
        " LEFT JOIN studies USING (study_instance_uid) WHERE kept.rowid > ? ORDER BY kept.rowid LIMIT ?"
    )
    while rows := connection.execute(query, [seen, BATCH]).fetchall():
        seen = rows[-1][0]
        yield [KeptFile(Path(name), size, blake3, study) for _, name, size, blake3, study in rows]


class QuarantineList:
    """What is in quarantine, for those who look after it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def all(self) -> list[QuarantinedObject]:
        """Give all of it, oldest first."""
        rows = self._ledger.db.query("SELECT * FROM quarantine ORDER BY quarantine_id")
        return [QuarantinedObject(**(row | {"path": Path(row["path"])})) for row in rows]

    def forget(self, quarantine_ids: Sequence[int]) -> None:
        """Delete rows; the files are the caller's.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with self._ledger.transaction() as db:
            for quarantine_id in quarantine_ids:
                db.execute("DELETE FROM quarantine WHERE quarantine_id = ?", [quarantine_id])
