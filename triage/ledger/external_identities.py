"""People whom an identity provider vouches for, and the accounts that they have here."""

from __future__ import annotations

from triage.errors import StoreError
from triage.ledger.connection import Ledger


class ExternalIdentities:
    """Which account belongs to whom at which provider.

    A person is known by issuer and subject, which a provider never gives to another (OpenID Connect Core 5.7); a name
    that an account has already is never taken over.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def account_for(self, issuer: str, subject: str, *, wanted_name: str, role: str, now: float) -> str:
        """Give the account of a person, opened at the first sign-in, with the role that the provider says now.

        Raises:
            StoreError: the name that a new person would have belongs to another account.
        """
        with self._ledger.transaction() as db:
            row = db.execute(
                "SELECT username FROM external_identities WHERE issuer = ? AND subject = ?", [issuer, subject]
            ).fetchone()
            if row is not None:
                db.execute("UPDATE users SET role = ? WHERE username = ?", [role, row[0]])
                return str(row[0])
            if db.execute("SELECT 1 FROM users WHERE username = ?", [wanted_name]).fetchone():
                raise StoreError("There is another account of this name already.")
            # No password: an empty hash fits none, so this account enters through its provider only.
            db.execute(
                "INSERT INTO users (username, password_hash, role, created_at) VALUES (?, '', ?, ?)",
                [wanted_name, role, now],
            )
            db.execute(
                "INSERT INTO external_identities (issuer, subject, username, created_at) VALUES (?, ?, ?, ?)",
                [issuer, subject, wanted_name, now],
            )
            return wanted_name
