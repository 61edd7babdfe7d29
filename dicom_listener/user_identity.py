"""User identity negotiation: who a sender says that it is, and whether it has shown it (PS3.7 D.3.3.7)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import threading
from dataclasses import dataclass, field
from enum import IntEnum

from triage.errors import ConfigError

# RFC 7914 as hashlib has it: 16 MB and about 50 ms for one guess
COST, BLOCK_BYTES, PARALLEL = 2**14, 8, 1
SALT_BYTES = 16
MEMORY_MAX = 2**26

_ENCODED = re.compile(r"scrypt\$(\d+)\$(\d+)\$(\d+)\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")


class IdentityKind(IntEnum):
    """User-Identity-Type, PS3.7 Table D.3-14."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JSON_WEB_TOKEN = 5


@dataclass(frozen=True)
class Claim:
    """Who a requestor says that it is; neither field belongs into a log."""

    kind: int  # one of IdentityKind
    primary: bytes = field(repr=False)  # user name in UTF-8, or a ticket
    passcode: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class PasscodeHash:
    """What is kept of a passcode, from which it cannot be read."""

    cost: int
    block_bytes: int
    parallel: int
    salt: bytes
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, passcode: str) -> PasscodeHash:
        """Hash a passcode."""
        salt = os.urandom(SALT_BYTES)
        return cls(COST, BLOCK_BYTES, PARALLEL, salt, _scrypt(passcode.encode(), salt, COST, BLOCK_BYTES, PARALLEL))

    @classmethod
    def parse(cls, text: str) -> PasscodeHash:
        """Read what `str` gave.

        Raises:
            ConfigError: it is something else.
        """
        match = _ENCODED.fullmatch(text)
        try:
            if match is not None:
                cost, block_bytes, parallel = (int(match[number]) for number in (1, 2, 3))
                salt, digest = (base64.b64decode(match[number], validate=True) for number in (4, 5))
                parsed = cls(cost, block_bytes, parallel, salt, digest)
                parsed.fits(b"")  # numbers that scrypt does not take must not wait for the first sender
                return parsed
        except ValueError:
            pass
        raise ConfigError("A passcode_hash of listener.senders is none. Write there what `ich-triage passcode` prints.")

    def fits(self, passcode: bytes) -> bool:
        """Whether it was made from this passcode."""
        found = _scrypt(passcode, self.salt, self.cost, self.block_bytes, self.parallel)
        return hmac.compare_digest(found, self.digest)

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.digest))
        return f"scrypt${self.cost}${self.block_bytes}${self.parallel}${salt}${digest}"


class IdentityCheck:
    """What one sender must show.

    Args:
        username: it must name this user.
        passcode_hash: and, unless empty, show the passcode that this was made from.

    Raises:
        ConfigError: `passcode_hash` is none.
    """

    def __init__(self, username: str, passcode_hash: str) -> None:
        self._username = username.encode()
        self._hash = PasscodeHash.parse(passcode_hash) if passcode_hash else None
        self._lock = threading.Lock()  # one guess at a time: guessing takes neither the memory nor all cores
        self._key = os.urandom(32)
        self._right = b""  # the passcode found right, under our key: a busy sender pays once

    def objection(self, claim: Claim | None) -> str:
        """Say what is wrong with a claim, without anything of it; empty: nothing."""
        if claim is None:
            return "no user identity was shown"
        kinds = (IdentityKind.USERNAME_AND_PASSCODE,) if self._hash else tuple(IdentityKind)[:2]
        if claim.kind not in kinds:
            return (
                f"a user identity of type {claim.kind}; {' or '.join(str(int(kind)) for kind in kinds)} is checked here"
            )
        if not hmac.compare_digest(claim.primary, self._username):
            return "another user name than the one set"
        if self._hash is not None and not self._is_right(claim.passcode, self._hash):
            return "a wrong passcode"
        return ""

    def _is_right(self, passcode: bytes, expected: PasscodeHash) -> bool:
        seen = hmac.digest(self._key, passcode, "sha256")
        if hmac.compare_digest(seen, self._right):  # not behind the lock: who guesses must not hold up who knows
            return True
        with self._lock:
            if not expected.fits(passcode):
                return False
            self._right = seen
        return True


def _scrypt(passcode: bytes, salt: bytes, cost: int, block_bytes: int, parallel: int) -> bytes:
    return hashlib.scrypt(passcode, salt=salt, n=cost, r=block_bytes, p=parallel, maxmem=MEMORY_MAX, dklen=32)
