"""What a sender proposes, read in a fraction of pynetdicom's time.

Senders propose up to 128 presentation contexts with the same few transfer syntaxes, and pynetdicom makes and checks
each UID anew, several times over: 30 ms in which no other association moves. Here it checks each UID once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

ITEMS_START = 74  # of an A-ASSOCIATE-RQ, PS3.8 Table 9-11
PROPOSED_CONTEXT = 0x20  # PS3.8 Table 9-13
ABSTRACT_SYNTAX = 0x30  # PS3.8 Table 9-14
TRANSFER_SYNTAX = 0x40  # PS3.8 Table 9-15
SUB_ITEMS_START = 4  # behind the context's ID
REMEMBERED_BYTES = 66  # a UID with its padding

_ITEM_HEAD = struct.Struct(">BBH")


class AssociationRequest(A_ASSOCIATE_RQ):  # type: ignore[misc]
    """pynetdicom's A-ASSOCIATE-RQ, but for the presentation contexts."""

    def __init__(self) -> None:
        super().__init__()
        self._proposed: list[PresentationContext] = []

    def decode(self, bytestream: bytes) -> None:
        """Read the bytes of a whole PDU.

        Raises:
            ValueError: they are no A-ASSOCIATE-RQ.
        """
        others = [bytestream[:ITEMS_START]]
        for kind, start, end in _items(bytestream, ITEMS_START, len(bytestream)):
            if kind == PROPOSED_CONTEXT:
                self._proposed.append(_proposed_context(bytestream, start, end))
            else:
                others.append(bytestream[start - _ITEM_HEAD.size : end])
        super().decode(b"".join(others))

    def to_primitive(self) -> A_ASSOCIATE:
        """Give the request as the service user gets it."""
        primitive = super().to_primitive()
        primitive.presentation_context_definition_list = self._proposed
        return primitive


def context_of(abstract_syntax: UID | None, transfer_syntaxes: Iterable[UID]) -> PresentationContext:
    """Make a presentation context of UIDs that were checked before: pynetdicom's setters check them again."""
    context = PresentationContext()
    context._abstract_syntax = abstract_syntax
    context._transfer_syntax = list(transfer_syntaxes)
    return context


def _proposed_context(data: bytes, start: int, end: int) -> PresentationContext:
    abstract_syntax: UID | None = None
    transfer_syntaxes: dict[UID, None] = {}  # the first of several alike counts
    for kind, value_start, value_end in _items(data, start + SUB_ITEMS_START, end):
        uid = _uid_of(data[value_start:value_end])
        if kind == ABSTRACT_SYNTAX:
            abstract_syntax = uid
        elif kind != TRANSFER_SYNTAX:
            raise ValueError(f"a presentation context with an item of type 0x{kind:02X}; expected 0x30 or 0x40")
        elif uid:
            transfer_syntaxes[uid] = None
    context = context_of(abstract_syntax, transfer_syntaxes)
    context.context_id = data[start]
    return context


def _items(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give the type of each item, and where its value starts and ends."""
    while position < end:
        if position + _ITEM_HEAD.size > end:
            raise ValueError("an association request that ends inside the head of an item")
        kind, _, length = _ITEM_HEAD.unpack_from(data, position)
        start = position + _ITEM_HEAD.size
        position = start + length
        if position > end:
            raise ValueError(f"an item of {length} bytes in an association request that has {end - start} left")
        yield kind, start, position


def _uid_of(value: bytes) -> UID:
    return _remembered(value) if len(value) <= REMEMBERED_BYTES else _checked(value)


def _checked(value: bytes) -> UID:
    """Let pynetdicom check a UID.

    Raises:
        ValueError: it refuses it.
    """
    context = PresentationContext()
    context.abstract_syntax = value
    return context.abstract_syntax  # type: ignore[no-any-return]


_remembered = lru_cache(maxsize=512)(_checked)
