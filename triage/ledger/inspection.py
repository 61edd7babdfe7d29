"""Looking at a ledger's file without changing it: whether it can be used, and which steps it still lacks."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from triage.errors import StoreError
from triage.ledger.connection import migration_names

LOCK_WAIT_S = 5.0  # for other processes' writes; a listener commits in milliseconds


@dataclass(frozen=True)
class LedgerFile:
    """What was found.

    Attributes:
        steps: how many migration steps were applied.
        pending: steps that the next start of a process applies.
        newer: steps of a newer version of this software, which this one must not touch.
        size_bytes: of the file, without its write-ahead log.
    """

    steps: int
    pending: tuple[str, ...]
    newer: tuple[str, ...]
    size_bytes: int


def inspect_ledger(path: Path) -> LedgerFile:
    """Open a ledger as a process would, take its write lock, and change nothing.

    Raises:
        StoreError: it cannot be opened, is no ledger, or stays locked.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_WAIT_S)
        try:
            applied = _applied(connection)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{type(error).__name__}: {error}") from error
    known = migration_names()
    return LedgerFile(
        steps=len(applied),
        pending=tuple(sorted(known - applied)),
        newer=tuple(sorted(applied - known)),
        size_bytes=path.stat().st_size,
    )


def _applied(connection: sqlite3.Connection) -> set[str]:
    connection.isolation_level = None  # BEGIN and ROLLBACK are given here
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'")
    if rows.fetchone() is None:
        return set()
    return {row[0] for row in connection.execute("SELECT name FROM _sqlite_migrations")}
