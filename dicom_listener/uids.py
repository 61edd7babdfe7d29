"""Checks on DICOM Unique Identifiers from outside."""

from __future__ import annotations

import re

UID_LENGTH_MAX = 64  # PS3.5 9.1

# PS3.5 9.1 also forbids leading zeros in a component. Scanners that write them exist; refusing their head CTs would
# harm a patient and protect nothing, as no UID is ever used as a path.
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+)+")


def checked_uid(value: bytes) -> str | None:
    """Give a UID as text without its padding, or None if it is none (PS3.5 9.1).

    Args:
        value: as it stands in a command or data set; padded by NUL, or by space as some senders do.
    """
    bare = value.rstrip(b"\0 ")
    if len(bare) > UID_LENGTH_MAX or _UID.fullmatch(bare) is None:
        return None
    return bare.decode("ascii")
