"""Accept and its parameters (PS3.18 8.7): which media type and transfer syntax an answer will have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from werkzeug.datastructures import Headers, MultiDict
from werkzeug.http import parse_list_header

DICOM, OCTETS, JSON = "application/dicom", "application/octet-stream", "application/dicom+json"
MULTIPART = "multipart/related"
AS_STORED = "*"  # transfer-syntax=*: whatever the origin server has
NOT_SAID = ""  # no transfer-syntax parameter: the default one, Explicit VR Little Endian
# Viewers write type=application/octet-stream without the quotes that RFC 9110 asks for around a slash.
PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^;"]*))')
MOST_RANGES = 32  # a header with more is not read further


@dataclass(frozen=True)
class Wanted:
    """One media range of an Accept header."""

    media_type: str  # of a part, where the whole is multipart
    multipart: bool
    transfer_syntax: str
    quality: float

    @property
    def bare(self) -> bool:
        """Whether one part without a multipart envelope is asked for; who takes anything gets the envelope."""
        return not self.multipart and self.media_type != "*/*"

    def takes(self, media_type: str) -> bool:
        """Say whether a media type lies in this range."""
        mine, offered = self.media_type.split("/"), media_type.split("/")
        return mine[0] in ("*", offered[0]) and mine[-1] in ("*", offered[-1])


class NotAcceptable(Exception):
    """Nothing that can be given is asked for; the message says what can."""


def wanted_from(headers: Headers, args: MultiDict[str, str]) -> list[Wanted]:
    """Read what the caller takes, best first.

    Args:
        headers: `Accept` is read.
        args: of the address; `accept` there wins over the header (PS3.18 8.3.3.1).
    """
    text = ",".join(args.getlist("accept")) or ",".join(headers.getlist("Accept")) or "*/*"
    found = [_wanted(item) for item in parse_list_header(text)[:MOST_RANGES]]
    return sorted((item for item in found if item.quality > 0), key=lambda item: -item.quality)


def choose(wanted: Sequence[Wanted], offered: Sequence[str]) -> str:
    """Give the offered media type that the caller likes best.

    Raises:
        NotAcceptable: none.
    """
    for item in wanted:
        for media_type in offered:
            if item.takes(media_type) and not item.multipart:
                return media_type
    raise NotAcceptable(f"This can be given as {', '.join(offered)}.")


def _wanted(text: str) -> Wanted:
    value = text.partition(";")[0].strip()
    options = {name.lower(): (quoted or bare).strip() for name, quoted, bare in PARAMETER.findall(text)}
    multipart = value.lower().startswith("multipart/")
    media_type = options.get("type", "*/*") if multipart else value
    syntax = options.get("transfer-syntax", AS_STORED if media_type == "*/*" else NOT_SAID)
    return Wanted(media_type.lower(), multipart, syntax, _quality(options.get("q", "1")))


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0
