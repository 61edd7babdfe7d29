"""The parts of a multipart/related body, passed on to the listener while they come (RFC 2046 5.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from triage.intake_door import Bringer, Brought
from worklist_ui.dicomweb.negotiation import DICOM

NOT_DICOM = 0x0110  # PS3.7 Annex C: processing failure


class BrokenBody(Exception):
    """The body is no multipart message, or ends before its last boundary."""


@dataclass(frozen=True)
class PartRefused:
    """A part that is no DICOM file by its own Content-Type."""

    comment: str
    status: int = NOT_DICOM


class IncomingParts:
    """One body; python-multipart finds the parts.

    Args:
        boundary: between the parts.
        bringer: takes each part as one instance.
    """

    def __init__(self, boundary: bytes, bringer: Bringer) -> None:
        self._bringer = bringer
        self._outcomes: list[Brought | PartRefused] = []
        self._name, self._value = b"", b""
        self._refused: PartRefused | None = None
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._last,
            },
        )

    def take(self, body: Iterable[bytes]) -> list[Brought | PartRefused]:
        """Pass on a whole body; give what became of each part, in order.

        Raises:
            BrokenBody: what was answered before is kept.
            DoorClosed: the listener has gone.
        """
        try:
            for piece in body:
                self._parser.write(piece)
        except MultipartParseError as error:
            raise BrokenBody(f"The body breaks off or is no multipart message at byte {error.offset}.") from error
        if not self._ended:
            raise BrokenBody("The body ends before its last boundary.")
        return self._outcomes

    def _begin(self) -> None:
        self._refused = None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        name, value = self._name.lower(), self._value
        self._name, self._value = b"", b""
        if name == b"content-type":
            kind, _ = parse_options_header(value)
            if kind.lower() != DICOM.encode():
                self._refused = PartRefused(f"the part is no {DICOM}")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._refused is None:
            self._bringer.send(memoryview(data)[start:end])

    def _end(self) -> None:
        self._outcomes.append(self._bringer.end() if self._refused is None else self._refused)

    def _last(self) -> None:
        self._ended = True
