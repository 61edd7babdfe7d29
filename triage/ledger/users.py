"""Who may sign in to the worklist, their sessions and one-time links.

Passwords arrive here only as hashes, session and link tokens only as SHA-256: whoever reads the file signs in nowhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlite_utils import Database

from triage.errors import StoreError
from triage.ledger.connection import Ledger
from triage.ledger.rows import Row


@dataclass(frozen=True)
class User:
    """One account; `locked_until` is in the past or None unless too many sign-ins failed."""

    username: str
    role: str
    created_at: float
    disabled: bool = False
    failed_sign_ins: int = 0
    locked_until: float | None = None


@dataclass(frozen=True)
class Session:
    """One signed-in browser."""

    username: str
    started_at: float
    seen_at: float


@dataclass(frozen=True)
class OneTimeLink:
    """Lets the person who opens it choose a password, once; an empty username is chosen by that person too."""

    username: str
    role: str
    expires_at: float


class Users:
    """Accounts, sessions and one-time links in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def count(self) -> int:
        """Give how many accounts there are, disabled ones too."""
        return int(self._ledger.db.execute("SELECT COUNT(*) FROM users").fetchone()[0])

    def all(self) -> list[User]:
        """Give every account by name."""
        return [_user_from(row) for row in self._ledger.db.query("SELECT * FROM users ORDER BY username")]

    def by_name(self, username: str) -> User | None:
        """Give an account, or None."""
        rows = self._ledger.db.query("SELECT * FROM users WHERE username = ?", [username])
        row = next(iter(rows), None)
        return None if row is None else _user_from(row)

    def password_hash(self, username: str) -> str | None:
        """Give the stored hash of an account's password, or None where there is no such account."""
        row = self._ledger.db.execute("SELECT password_hash FROM users WHERE username = ?", [username]).fetchone()
        return None if row is None else str(row[0])

    def add(self, username: str, *, role: str, password_hash: str, now: float) -> None:
        """Open an account.

        Raises:
            StoreError: the name is taken.
        """
        with self._ledger.transaction() as db:
            _add_user(db, username, role=role, password_hash=password_hash, now=now)

    def set_password_hash(self, username: str, password_hash: str) -> bool:
        """Change a password and end all sessions that the old one opened; False if there is no such account."""
        with self._ledger.transaction() as db:
            return _set_password_hash(db, username, password_hash)

    def set_role(self, username: str, role: str) -> bool:
        """Give an account another role; False if there is no such account."""
        with self._ledger.transaction() as db:
            return _changed(db, "UPDATE users SET role = ? WHERE username = ?", role, username)

    def disable(self, username: str) -> bool:
        """Close an account and end its sessions; False if there is no such account."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM sessions WHERE username = ?", [username])
            return _changed(db, "UPDATE users SET disabled = 1 WHERE username = ?", username)

    def enable(self, username: str) -> bool:
        """Open a closed or locked account again; False if there is no such account."""
        with self._ledger.transaction() as db:
            return _changed(
                db,
                "UPDATE users SET disabled = 0, failed_sign_ins = 0, locked_until = NULL WHERE username = ?",
                username,
            )

    def record_failure(self, username: str, *, lock_after: int, lock_s: float, now: float) -> bool:
        """Count a wrong password; True if the account is locked now."""
        with self._ledger.transaction() as db:
            row = db.execute("SELECT failed_sign_ins FROM users WHERE username = ?", [username]).fetchone()
            if row is None:
                return False
            failed = int(row[0]) + 1
            locked = failed >= lock_after
            db.execute(
                "UPDATE users SET failed_sign_ins = ?, locked_until = ? WHERE username = ?",
                [0 if locked else failed, now + lock_s if locked else None, username],
            )
            return locked

    def open_session(self, token: str, username: str, *, now: float) -> None:
        """Start a session and forget earlier wrong passwords."""
        with self._ledger.transaction() as db:
            db.execute("UPDATE users SET failed_sign_ins = 0, locked_until = NULL WHERE username = ?", [username])
            db.execute(
                "INSERT INTO sessions (token_sha256, username, started_at, seen_at) VALUES (?, ?, ?, ?)",
                [_sha256(token), username, now, now],
            )

    def session(self, token: str) -> Session | None:
        """Give the session that a token names, or None."""
        row = self._ledger.db.execute(
            "SELECT username, started_at, seen_at FROM sessions WHERE token_sha256 = ?", [_sha256(token)]
        ).fetchone()
        return None if row is None else Session(*row)

    def touch_session(self, token: str, *, now: float) -> None:
        """Note that a session is in use."""
        with self._ledger.transaction() as db:
            db.execute("UPDATE sessions SET seen_at = ? WHERE token_sha256 = ?", [now, _sha256(token)])

    def close_session(self, token: str) -> None:
        """End a session."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM sessions WHERE token_sha256 = ?", [_sha256(token)])

    def close_sessions_before(self, started_before: float, seen_before: float) -> None:
        """Forget sessions that have expired."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM sessions WHERE started_at < ? OR seen_at < ?", [started_before, seen_before])

    def add_link(self, token: str, *, role: str, now: float, expires_at: float, username: str = "") -> None:
        """Make a one-time link; earlier unused ones for the same person are void."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM one_time_links WHERE username = ? AND used_at IS NULL", [username])
            db.execute(
                "INSERT INTO one_time_links (token_sha256, username, role, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?)",
                [_sha256(token), username, role, now, expires_at],
            )

    def link(self, token: str, *, now: float) -> OneTimeLink | None:
        """Give a link that may still be used, or None."""
        return _open_link(self._ledger.db, token, now=now)

    def use_link(self, token: str, *, username: str, password_hash: str, now: float) -> User | None:
        """Use up a link: open the account it is for, or give it the new password; None if it may not be used.

        Raises:
            StoreError: the name that the person chose is taken.
        """
        with self._ledger.transaction() as db:
            link = _open_link(db, token, now=now)
            if link is None:
                return None
            db.execute("UPDATE one_time_links SET used_at = ? WHERE token_sha256 = ?", [now, _sha256(token)])
            name = link.username or username
            known = bool(link.username) and _set_password_hash(db, name, password_hash)
            if not known:
                _add_user(db, name, role=link.role, password_hash=password_hash, now=now)
        return self.by_name(name)


def _add_user(db: Database, username: str, *, role: str, password_hash: str, now: float) -> None:
    if db.execute("SELECT 1 FROM users WHERE username = ?", [username]).fetchone():
        raise StoreError("There is an account of this name already; choose another name.")
    db.execute(
        "INSERT INTO users (username, password_hash, role, created_at) VALUES (?, ?, ?, ?)",
        [username, password_hash, role, now],
    )


def _set_password_hash(db: Database, username: str, password_hash: str) -> bool:
    db.execute("DELETE FROM sessions WHERE username = ?", [username])
    return _changed(
        db,
        "UPDATE users SET password_hash = ?, failed_sign_ins = 0, locked_until = NULL WHERE username = ?",
        password_hash,
        username,
    )


def _open_link(db: Database, token: str, *, now: float) -> OneTimeLink | None:
    row = db.execute(
        "SELECT username, role, expires_at FROM one_time_links"
        " WHERE token_sha256 = ? AND used_at IS NULL AND expires_at > ?",
        [_sha256(token), now],
    ).fetchone()
    return None if row is None else OneTimeLink(*row)


def _changed(db: Database, sql: str, *values: str) -> bool:
    return bool(db.execute(sql, list(values)).rowcount > 0)


def _user_from(row: Row) -> User:
    return User(
        username=row["username"],
        role=row["role"],
        created_at=row["created_at"],
        disabled=bool(row["disabled"]),
        failed_sign_ins=row["failed_sign_ins"],
        locked_until=row["locked_until"],
    )


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
