"""How this host's other processes show the C-STORE port that they are ours: by a secret in the storage folder.

What is fetched from the PACS is handed to the port in the name of the PACS, for which hosts and a user may be set.
Who can read the token can write the images beside it anyhow.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from dicom_listener.user_identity import Claim, IdentityKind

TOKEN_FILE = Path("listener.token")
OWN_NAME = b"ich-triage"


def make_token(folder: Path) -> bytes:
    """Give the token of a storage folder; the first time, make it.

    Raises:
        OSError: it cannot be read or written.
    """
    try:
        descriptor = os.open(folder / TOKEN_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if token := own_token(folder):
            return token
        descriptor = os.open(folder / TOKEN_FILE, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)  # a crash left it empty
    token = secrets.token_hex(32).encode("ascii")
    with os.fdopen(descriptor, "wb") as file:
        file.write(token)
    return token


def own_token(folder: Path) -> bytes:
    """Read the token; empty: there is none, or it is not for this user."""
    try:
        return (folder / TOKEN_FILE).read_bytes()
    except OSError:
        return b""


def is_ours(claim: Claim | None, token: bytes) -> bool:
    """Whether a requestor has shown the token."""
    return (
        claim is not None
        and claim.kind == IdentityKind.USERNAME_AND_PASSCODE
        and claim.primary == OWN_NAME
        and bool(token)
        and hmac.compare_digest(claim.passcode, token)
    )
