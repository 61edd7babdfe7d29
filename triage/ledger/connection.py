"""Connections to the ledger: one a thread, durable, with write transactions that never have to be upgraded."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from triage.errors import StoreError
from triage.ledger.migrations import migrations

BUSY_TIMEOUT_S = 15.0  # longer than any transaction here; a writer waits for its turn instead of failing


class Ledger:
    """The ledger in one file, opened once a process and used from any thread.

    Args:
        path: the SQLite file, on a local disk (WAL needs shared memory); made, with its folder, if absent.

    Raises:
        StoreError: the file cannot be opened, or was written by a newer version of this software.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._opened_lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The ledger cannot be opened: {type(error).__name__}: {error}. "
                "Check that its folder exists on a local disk and may be written by this user."
            ) from error

    @property
    def db(self) -> Database:
        """This thread's connection."""
        existing: Database | None = getattr(self._local, "db", None)
        if existing is None:
            existing = self._local.db = self._connect()
        return existing

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Run the body as one durable write; an error in it undoes all of it.

        The write lock is taken at once (BEGIN IMMEDIATE): a transaction that first reads and then writes would fail
        with SQLITE_BUSY_SNAPSHOT as soon as another process wrote in between.

        Raises:
            StoreError: the disk is full, or the ledger stayed locked for `BUSY_TIMEOUT_S`.
        """
        db = self.db
        try:
            db.conn.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StoreError(f"The ledger takes no writes: {error}.") from error
        try:
            yield db
            db.conn.execute("COMMIT")
        except sqlite3.Error as error:
            db.rollback()
            raise StoreError(f"The ledger could not be written: {error}. Nothing of this step was kept.") from error
        except BaseException:
            db.rollback()
            raise

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._opened_lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
        self._local = threading.local()

    def _connect(self) -> Database:
        # check_same_thread is off only so that close() may close what other threads opened.
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before C-STORE answers
        connection.execute("PRAGMA foreign_keys = ON")
        with self._opened_lock:
            self._opened.append(connection)
        return Database(connection, execute_plugins=False)

    def _migrate(self) -> None:
        with self.transaction() as db:  # one process migrates, the others wait for it
            known = {step.name for step in migrations.pending(db)} | {step.name for step in migrations.applied(db)}
            newer = [step.name for step in migrations.applied(db) if step.name not in migration_names()]
            if newer:
                raise StoreError(
                    f"The ledger was written by a newer version (steps {', '.join(newer)}); "
                    f"this one knows {len(known) - len(newer)} steps. Update this host."
                )
            migrations.apply(db)


class SharedLedger(Ledger):
    """The ledger by one connection, for threads that take turns: their caller lets one at a time use it.

    Args and errors as those of `Ledger`.
    """

    def __init__(self, path: Path) -> None:
        self._shared: Database | None = None
        super().__init__(path)

    @property
    def db(self) -> Database:
        """The connection of all threads."""
        if self._shared is None:
            self._shared = self._connect()
        return self._shared

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._shared = None


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new ledger to WAL; SQLite does not wait for others who do the same just now, so we do."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise  # a file that cannot be opened at all is told at once
            time.sleep(0.01)
        else:
            return


def migration_names() -> frozenset[str]:
    """Names of all steps this version knows."""
    return frozenset(step.name for step in migrations._migrations)
