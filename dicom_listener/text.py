"""Text of a data set in whatever character set it claims: decoded as well as can be, never an error (PS3.5 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydicom.charset import decode_bytes, python_encoding

ESCAPE = 0x1B
REMEMBERED_BYTES = 64  # the images of a study share most of their texts
_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C, 0x5C, 0x5E, 0x3D}  # PS3.5 6.1.2.5.3: these return to the first character set
_CONTROLS = dict.fromkeys([*range(0x20), 0x7F, *range(0x80, 0xA0)])


def text_of(value: bytes, character_set: bytes = b"") -> str:
    """Decode one value: by its Specific Character Set, else as UTF-8, else as Latin-1.

    Args:
        value: of VR PN, LO, SH or the like, with its padding.
        character_set: value of (0008,0005), empty if absent.
    """
    if len(value) + len(character_set) <= REMEMBERED_BYTES:
        return _remembered(value, character_set)
    return _decoded(value, character_set)


def _decoded(value: bytes, character_set: bytes) -> str:
    if value.isascii() and ESCAPE not in value:
        return _clean(value.decode("ascii"))
    encodings = _encodings(character_set)
    if not encodings:
        return _clean(_guessed(value))
    try:
        if ESCAPE not in value and len(encodings) == 1:
            return _clean(value.decode(encodings[0]))
        return _clean(decode_bytes(value, encodings, _DELIMITERS))
    except (LookupError, ValueError, Warning):  # a UnicodeError is a ValueError; pydicom warns where it guesses
        return _clean(_guessed(value))


def _encodings(character_set: bytes) -> Sequence[str]:
    """Give Python's names of the character sets that are known; an unknown one is passed over."""
    terms = [term.strip().decode("ascii", "replace") for term in character_set.rstrip(b"\0 ").split(b"\\")]
    if len(terms) > 1 and not terms[0]:
        terms[0] = "ISO 2022 IR 6"
    known = [python_encoding[term] for term in (_usual(term) for term in terms) if term in python_encoding]
    return [] if known == ["iso8859"] else known  # ISO_IR 6 with other than ASCII in it says nothing


def _usual(term: str) -> str:
    """Mend the spellings that are seen in the field: "ISO-IR 100", "ISO IR 192", "UTF-8"."""
    upper = term.upper().replace("-", " ").replace("_", " ")
    if upper in ("UTF 8", "UTF8"):
        return "ISO_IR 192"
    if upper.startswith("ISO IR "):
        return "ISO_IR " + upper.removeprefix("ISO IR ")
    return upper if upper.startswith("ISO 2022") else term


def _guessed(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _clean(text: str) -> str:
    """Drop padding and control characters, which a page or a log must never be given."""
    return text.rstrip("\0 ").translate(_CONTROLS).strip()


_remembered = lru_cache(maxsize=512)(_decoded)
