"""Passwords: hashed by argon2id, generated where nobody chooses one."""

from __future__ import annotations

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST = 10  # characters; long rather than odd (NIST SP 800-63B)
LONGEST = 256  # argon2 takes any length, a request of megabytes need not be hashed
_hasher = PasswordHasher()
# What a sign-in with an unknown name is compared with, so that it takes as long as one with a known name.
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))


def hash_password(password: str) -> str:
    """Give the argon2id hash of a password."""
    return _hasher.hash(password)


def is_right(password: str, password_hash: str | None) -> bool:
    """Say whether a password fits a stored hash; None (no such account) takes as long and fits never."""
    try:
        return _hasher.verify(password_hash or _NOBODY, password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def generate() -> str:
    """Give a new password of 96 random bits."""
    return secrets.token_urlsafe(12)


def complaint(password: str) -> str:
    """Say what is wrong with a chosen password; empty: nothing."""
    if len(password) < SHORTEST:
        return f"The password has {len(password)} characters; choose at least {SHORTEST}."
    if len(password) > LONGEST:
        return f"The password has {len(password)} characters; choose at most {LONGEST}."
    if len(set(password)) < 4:
        return "The password repeats too few characters; choose another one."
    return ""
