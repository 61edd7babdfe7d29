"""Tokens by which programs ask: whose, for what, until when. Kept only as SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from triage.errors import StoreError
from triage.ledger.connection import Ledger
from triage.ledger.rows import Row


@dataclass(frozen=True)
class Token:
    """One token as it is shown: never the secret itself."""

    token_id: int
    username: str
    scopes: frozenset[str]
    label: str
    created_at: float
    expires_at: float
    revoked_at: float | None = None
    used_at: float | None = None

    def is_valid(self, now: float) -> bool:
        """Say whether it opens anything: not revoked, not expired."""
        return self.revoked_at is None and now < self.expires_at


class Tokens:
    """The tokens in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(
        self, secret: str, username: str, *, scopes: Collection[str], label: str = "", expires_at: float, now: float
    ) -> Token:
        """Keep a new token of an account.

        Raises:
            StoreError: there is no such account, or it is closed.
        """
        with self._ledger.transaction() as db:
            open_account = "SELECT 1 FROM users WHERE username = ? AND disabled = 0"
            if db.execute(open_account, [username]).fetchone() is None:
                raise StoreError("There is no open account of this name; a token belongs to one.")
            token_id = db.execute(
                "INSERT INTO api_tokens (token_sha256, username, scopes, label, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [_sha256(secret), username, " ".join(sorted(scopes)), label, now, expires_at],
            ).lastrowid
        return Token(int(token_id or 0), username, frozenset(scopes), label, now, expires_at)

    def by_secret(self, secret: str) -> Token | None:
        """Give the token that a program showed, revoked and expired ones too, or None."""
        rows = self._ledger.db.query("SELECT * FROM api_tokens WHERE token_sha256 = ?", [_sha256(secret)])
        row = next(iter(rows), None)
        return None if row is None else _token_from(row)

    def all(self) -> list[Token]:
        """Give every token, oldest first."""
        return [_token_from(row) for row in self._ledger.db.query("SELECT * FROM api_tokens ORDER BY token_id")]

    def revoke(self, token_id: int, *, now: float) -> bool:
        """End a token at once; False if there is none that still counts."""
        with self._ledger.transaction() as db:
            sql = "UPDATE api_tokens SET revoked_at = ? WHERE token_id = ? AND revoked_at IS NULL"
            return bool(db.execute(sql, [now, token_id]).rowcount > 0)

    def note_used(self, token_id: int, *, now: float) -> None:
        """Note when a token was last used."""
        with self._ledger.transaction() as db:
            db.execute("UPDATE api_tokens SET used_at = ? WHERE token_id = ?", [now, token_id])


def _token_from(row: Row) -> Token:
    return Token(
        token_id=row["token_id"],
        username=row["username"],
        scopes=frozenset(row["scopes"].split()),
        label=row["label"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        used_at=row["used_at"],
    )


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
