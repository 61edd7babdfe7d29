"""The answer to an association request, encoded in a fraction of pynetdicom's time (PS3.8 9.3.3).

A sender that offers 128 presentation contexts gets 128 results; pynetdicom encodes each field of each by a call of its
own. Some senders open an association for every image, so that this is much of what they cost.
"""

from __future__ import annotations

import struct
from copy import copy
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_items import PresentationContextItemAC

from dicom_listener.proposals import TRANSFER_SYNTAX

_PDU_HEAD = struct.Struct(">BBL")
_CONTEXT = struct.Struct(">BxHBxBx")  # PS3.8 Table 9-18: type, length, context ID, result
_TRANSFER_SYNTAX = struct.Struct(">BxH")  # PS3.8 Table 9-19: type, length
CONTEXT_RESULT = 0x21  # PS3.8 Table 9-18


def encoded_acceptance(pdu: A_ASSOCIATE_AC) -> bytes:
    """Give an A-ASSOCIATE-AC as bytes, the same that its own `encode` gives."""
    bare = copy(pdu)
    bare.variable_items = []
    fields = bare.encode()[_PDU_HEAD.size :]  # protocol version, AE titles and reserved bytes
    body = fields + b"".join(map(_encoded, pdu.variable_items))
    return bytes(_PDU_HEAD.pack(pdu.pdu_type, 0, len(body)) + body)


def _encoded(item: Any) -> bytes:
    if not isinstance(item, PresentationContextItemAC) or len(item.transfer_syntax_sub_item) != 1:
        return bytes(item.encode())
    name = item.transfer_syntax_sub_item[0].transfer_syntax_name or ""
    encoded = name.encode("utf-8")
    syntax = _TRANSFER_SYNTAX.pack(TRANSFER_SYNTAX, len(encoded)) + encoded
    context = _CONTEXT.pack(CONTEXT_RESULT, 4 + len(syntax), item.presentation_context_id, item.result_reason)
    return context + syntax
