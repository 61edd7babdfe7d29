"""C-STORE of arbitrary bytes over an established association, which pynetdicom's own SCU would refuse to send."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import C_STORE

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def store(association: Any, data: bytes, *, sop_instance_uid: str, sop_class_uid: str = CT_IMAGE_STORAGE) -> int:
    """Send `data` as a data set and give the status."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.Priority = 2
    request.DataSet = BytesIO(data)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    assert response is not None, "no answer"
    return int(response.Status)


def with_value(data: bytes, group: int, element: int, value: bytes) -> bytes:
    """Replace the value of an element with a short VR in an Explicit VR Little Endian data set."""
    start = data.index(struct.pack("<HH", group, element))
    (length,) = struct.unpack_from("<H", data, start + 6)
    value += b" " * (len(value) % 2)
    return data[: start + 6] + struct.pack("<H", len(value)) + value + data[start + 8 + length :]
