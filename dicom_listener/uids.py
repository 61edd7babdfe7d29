"""Checks on DICOM Unique Identifiers from outside."""

from __future__ import annotations

import re
from functools import lru_cache

UID_LENGTH_MAX = 64  # PS3.5 9.1
REMEMBERED_BYTES = UID_LENGTH_MAX + 2  # an image shares most of its UIDs with the one before

# PS3.5 9.1 also forbids leading zeros in a component. Scanners that write them exist; refusing their head CTs would
# harm a patient and protect nothing, as no UID is ever used as a path.
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+)+")


def checked_uid(value: bytes) -> str | None:
    """Give a UID as text without its padding, or None if it is none (PS3.5 9.1).

    Args:
        value: as it stands in a command or data set; padded by NUL, or by space as some senders do.
    """
    return _remembered(value) if len(value) <= REMEMBERED_BYTES else _checked(value)


def _checked(value: bytes) -> str | None:
    bare = value.rstrip(b"\0 ")
    if len(bare) > UID_LENGTH_MAX or _UID.fullmatch(bare) is None:
        return None
    return bare.decode("ascii")


_remembered = lru_cache(maxsize=512)(_checked)
