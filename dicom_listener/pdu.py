"""P-DATA-TF PDUs and the command sets in them, as far as a C-STORE SCP reads and writes them.

PS3.8 9.3.5 and Annex E (presentation data values), PS3.7 6.3 and Annex E (command sets), PS3.7 9.1.1 (C-STORE).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from triage.errors import TriageError

P_DATA_TF = 0x04
IS_COMMAND = 0x01  # message control header, PS3.8 E.2
IS_LAST = 0x02
C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101
COMMAND_BYTES_MAX = 65536  # a command set is a few hundred bytes; more is an attack

AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000

_ITEM = struct.Struct(">LBB")
_ELEMENT = struct.Struct("<HHL")
VALUE_HEAD_BYTES = _ITEM.size


class ProtocolError(TriageError):
    """The peer breaks PS3.7 or PS3.8: the association is aborted."""


@dataclass(frozen=True)
class DataValue:
    """One presentation data value."""

    context_id: int
    is_command: bool
    is_last: bool
    content: memoryview


@dataclass(frozen=True)
class ValueHead:
    """What a presentation data value says of itself before its content."""

    context_id: int
    is_command: bool
    is_last: bool
    size: int  # bytes of its content


@dataclass(frozen=True)
class Command:
    """What of a command set matters here."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: bytes
    sop_instance_uid: bytes


def data_values(body: memoryview) -> Iterator[DataValue]:
    """Take a P-DATA-TF apart.

    Args:
        body: the PDU without its six-byte head.

    Raises:
        ProtocolError: the lengths of its items do not add up.
    """
    position, end = 0, len(body)
    if not end:
        raise ProtocolError("a P-DATA-TF without a presentation data value")
    while position < end:
        if position + 6 > end:
            raise ProtocolError("a P-DATA-TF ends inside the head of an item")
        length, context_id, control = _ITEM.unpack_from(body, position)
        following = position + 4 + length
        if length < 2 or following > end:
            raise ProtocolError(f"an item of {length} bytes in a P-DATA-TF of {end}")
        yield DataValue(context_id, bool(control & IS_COMMAND), bool(control & IS_LAST), body[position + 6 : following])
        position = following


def only_value(head: memoryview, length: int) -> ValueHead | None:
    """Read the head of the value that fills a P-DATA-TF alone, as a large data set's do; None: it does not.

    Args:
        head: the first `VALUE_HEAD_BYTES` of the PDU behind its own head.
        length: of the PDU without its own head.
    """
    item_length, context_id, control = _ITEM.unpack(head)
    if item_length + 4 != length:
        return None
    return ValueHead(context_id, bool(control & IS_COMMAND), bool(control & IS_LAST), length - VALUE_HEAD_BYTES)


def read_command(encoded: bytes | bytearray) -> Command:
    """Read a command set, Implicit VR Little Endian.

    Raises:
        ProtocolError: it does not parse or lacks what every request has.
    """
    values: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        if position + 8 > len(encoded):
            raise ProtocolError("a command set ends inside an element")
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position += 8
        if group or position + length > len(encoded):
            raise ProtocolError("a command set with an element that is none of its own")
        values[element] = bytes(encoded[position : position + length])
        position += length
    return Command(
        field=_short(values, COMMAND_FIELD),
        message_id=_short(values, MESSAGE_ID) if MESSAGE_ID in values else 0,
        has_data_set=_short(values, COMMAND_DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=values.get(AFFECTED_SOP_CLASS_UID, b""),
        sop_instance_uid=values.get(AFFECTED_SOP_INSTANCE_UID, b""),
    )


def store_response(command: Command, context_id: int, status: int, comment: str = "") -> bytes:
    """Give a C-STORE response as the bytes of one P-DATA-TF (PS3.7 9.3.1.2)."""
    elements = [
        (AFFECTED_SOP_CLASS_UID, command.sop_class_uid),
        (COMMAND_FIELD, struct.pack("<H", C_STORE_RSP)),
        (MESSAGE_ID_RESPONDED_TO, struct.pack("<H", command.message_id)),
        (COMMAND_DATA_SET_TYPE, struct.pack("<H", NO_DATA_SET)),
        (STATUS, struct.pack("<H", status)),
        (AFFECTED_SOP_INSTANCE_UID, command.sop_instance_uid),
    ]
    if comment:
        elements.insert(5, (ERROR_COMMENT, comment.encode("ascii", "replace")[:64]))
    body = b"".join(_element(element, value) for element, value in elements)
    body = _element(0x0000, struct.pack("<L", len(body))) + body
    item = _ITEM.pack(len(body) + 2, context_id, IS_COMMAND | IS_LAST) + body
    return struct.pack(">BBL", P_DATA_TF, 0, len(item)) + item


def _element(element: int, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if element == ERROR_COMMENT else b"\0"
    return _ELEMENT.pack(0x0000, element, len(value)) + value


def _short(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise ProtocolError(f"a command set without a proper (0000,{element:04X})")
    return int.from_bytes(value, "little")
