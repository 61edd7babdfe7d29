"""Programs that show a token (RFC 6750): which account it belongs to, and why it is refused."""

from __future__ import annotations

import secrets

from flask import current_app, request

from triage.ledger.tokens import Token, Tokens
from triage.ledger.users import User
from worklist_ui.services import services

PREFIX = "ich_"  # lets a scanner for leaked secrets find it
NOTE_USE_EVERY_S = 60.0
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class TokenRefused(Exception):
    """The token that was shown opens nothing; the message says why."""


def new_secret() -> str:
    """Give a new token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def shown_secret() -> str | None:
    """Give the token that the request shows, or None where it shows none."""
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else None


def owner_of(secret: str) -> tuple[User, Token]:
    """Give the account and the token.

    Raises:
        TokenRefused: unknown, revoked or expired, or its account is closed.
    """
    found, now = services(), services().clock()
    token = found.tokens.by_secret(secret)
    if token is None:
        raise TokenRefused("This token is not known here.")
    if token.revoked_at is not None:
        raise TokenRefused("This token has been revoked.")
    if not token.is_valid(now):
        raise TokenRefused("This token has expired.")
    user = found.users.by_name(token.username)
    if user is None or user.disabled:
        raise TokenRefused("The account of this token is closed.")
    _note_use(found.tokens, token, now)
    return user, token


def check_csrf() -> None:
    """Ask a browser's session for the CSRF token; what shows a token of its own cannot be forged by a page.

    Raises:
        CSRFError: absent or wrong.
    """
    if request.method not in SAFE_METHODS:
        current_app.extensions["csrf"].protect()


def _note_use(tokens: Tokens, token: Token, now: float) -> None:
    if token.used_at is None or now - token.used_at > NOTE_USE_EVERY_S:
        tokens.note_used(token.token_id, now=now)
