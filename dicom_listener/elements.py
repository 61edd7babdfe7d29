"""A walk over an encoded data set that picks a few elements and proves that the rest is whole.

PS3.5 7.1 (data elements), 7.5 (sequences), A.4 (encapsulated pixel data). Values are skipped, never decoded: a CT slice
costs about 0.1 ms, and an odd value can never fail a receive.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass

from dicom_listener.disk import Bytes
from triage.errors import UnreadableInstance

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
DEPTH_MAX = 32  # real data sets nest five deep at most; a crafted one must not exhaust the stack

# VRs with a 32-bit length in explicit VR (PS3.5 Table 7.1-1)
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip


@dataclass(frozen=True)
class Encoding:
    """How the elements of a data set are written."""

    explicit_vr: bool = True
    big_endian: bool = False


class Truncated(UnreadableInstance):
    """The data set ends inside an element."""

    def __init__(self, tag: int, missing_bytes: int) -> None:
        super().__init__(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is {missing_bytes} bytes short")


def pick_elements(data: Bytes, encoding: Encoding, wanted: Container[int], *, total: int) -> dict[int, bytes]:
    """Walk a data set to its end and give the values of the `wanted` top-level tags.

    Args:
        data: the data set, or its beginning.
        encoding: from the transfer syntax.
        wanted: tags as 32-bit numbers, group before element.
        total: bytes of the whole data set; the walk stops quietly where `data` ends before it.

    Raises:
        Truncated: the data set ends inside an element.
        UnreadableInstance: these are no data elements.
    """
    return _Walk(data, encoding, total).pick(wanted)


def end_of_group(data: Bytes, start: int, group: int) -> int:
    """Give the position behind the elements of a group, Explicit VR Little Endian, whatever its group length says.

    Raises:
        Truncated: the data end inside an element.
        UnreadableInstance: these are no data elements.
    """
    walk = _Walk(data, Encoding(), len(data))
    position = start
    while position + 8 <= len(data) and int.from_bytes(data[position : position + 2], "little") == group:
        tag, value, length = walk.element(position)
        position = value + length
        if position > len(data):
            raise Truncated(tag, position - len(data))
    return position


class _Walk:
    def __init__(self, data: Bytes, encoding: Encoding, total: int) -> None:
        self._data = data
        self._end = len(data)
        self._total = total
        self._explicit = encoding.explicit_vr
        order = ">" if encoding.big_endian else "<"
        self._tag_and_length = struct.Struct(order + "HHL").unpack_from
        self._tag_vr_length = struct.Struct(order + "HH2sH").unpack_from
        self._long_length = struct.Struct(order + "L").unpack_from

    def pick(self, wanted: Container[int]) -> dict[int, bytes]:
        picked: dict[int, bytes] = {}
        position = 0
        while position < self._end:
            position = self._pick_short(position, wanted, picked)
            if position >= self._end:
                break
            if self._cut_off(position, 0, 12 if self._explicit else 8):
                break
            tag, start, length = self.element(position)
            if length == UNDEFINED_LENGTH:
                position = self._after_items(start, depth=0)
                continue
            position = start + length
            if position > self._total:
                raise Truncated(tag, position - self._total)
            if tag in wanted and position <= self._end:
                picked[tag] = bytes(self._data[start:position])
        return picked

    def _pick_short(self, position: int, wanted: Container[int], picked: dict[int, bytes]) -> int:
        """Pick from the elements of explicit VR with a short length, which most are, that are whole and at hand.

        Returns:
            The position of the first other element, or the end.
        """
        if not self._explicit:
            return position
        data, end, read, last = self._data, self._end, self._tag_vr_length, self._end - 8
        while position <= last:
            group, element, vr, length = read(data, position)
            following = position + 8 + length
            if vr not in SHORT_VRS or following > end:
                break
            tag = group << 16 | element
            if tag in wanted:
                picked[tag] = bytes(data[position + 8 : following])
            position = following
        return position

    def _cut_off(self, position: int, tag: int, header_bytes: int) -> bool:
        """Whether the element's head lies beyond what is at hand; a whole data set that ends there is cut short."""
        if position + header_bytes <= self._end:
            return False
        if self._end < self._total:
            return True
        if position + 8 > self._total:
            raise Truncated(tag, position + 8 - self._total)
        return False  # eight bytes are enough for a short VR; element checks the long ones

    def element(self, position: int) -> tuple[int, int, int]:
        """Give tag, start of the value and its length."""
        if not self._explicit:
            group, element, length = self._tag_and_length(self._data, position)
            return group << 16 | element, position + 8, length
        group, element, vr, length = self._tag_vr_length(self._data, position)
        tag = group << 16 | element
        if vr in SHORT_VRS:
            return tag, position + 8, length
        if vr in LONG_VRS:
            if position + 12 > self._end:
                raise Truncated(tag, position + 12 - self._end)
            return tag, position + 12, self._long_length(self._data, position + 8)[0]
        raise UnreadableInstance(f"no value representation at byte {position}; expected one of PS3.5 6.2")

    def _after_items(self, position: int, *, depth: int) -> int:
        """Give the position behind a sequence, or encapsulated pixel data, of undefined length."""
        if depth > DEPTH_MAX:
            raise UnreadableInstance(f"sequences nested more than {DEPTH_MAX} deep")
        while True:
            if position + 8 > self._end:
                return self._end_of_sight(position)
            group, element, length = self._tag_and_length(self._data, position)
            tag = group << 16 | element
            position += 8
            if tag == SEQUENCE_END:
                return position
            if tag != ITEM:
                raise UnreadableInstance(f"no item at byte {position - 8} of a sequence")
            position = self._after_item(position, depth=depth) if length == UNDEFINED_LENGTH else position + length

    def _after_item(self, position: int, *, depth: int) -> int:
        while True:
            if position + 8 > self._end:
                return self._end_of_sight(position)
            group, element, length = self._tag_and_length(self._data, position)
            if group << 16 | element == ITEM_END:
                return position + 8
            _, start, length = self.element(position)
            position = self._after_items(start, depth=depth + 1) if length == UNDEFINED_LENGTH else start + length

    def _end_of_sight(self, position: int) -> int:
        if self._end >= self._total:
            raise Truncated(SEQUENCE_END, max(8, position + 8 - self._total))
        return self._end
