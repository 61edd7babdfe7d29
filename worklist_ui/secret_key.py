"""The key that signs session cookies: made once, kept beside the ledger, readable by this user only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from triage.errors import ConfigError

KEY_BYTES = 32


def read_or_make(folder: Path) -> bytes:
    """Give the key kept in `folder`, made if there is none.

    Raises:
        ConfigError: it can neither be read nor written, or holds too few bytes.
    """
    path = folder / "worklist.key"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The session key cannot be read or made: {error.strerror}: {path}.") from error
    if len(key) < KEY_BYTES:
        raise ConfigError(
            f"The session key has {len(key)} bytes, expected {KEY_BYTES}; delete {path} to make a new one."
        )
    return key


def _make(path: Path) -> None:
    """Write a new key under another name first, so that nobody reads half of one."""
    if path.exists():
        return
    half = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
    try:
        os.link(half, path)  # fails where another process was faster: then that one's key is the key
    except FileExistsError:
        pass
    finally:
        half.unlink()
