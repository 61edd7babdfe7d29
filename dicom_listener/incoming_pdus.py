"""One PDU after the other off a connection: data go to the messages they belong to, all others to the upper layer.

PS3.8 9.3. A PDU may be refused by its head alone; what it claims to hold is never made room for unseen.
"""

from __future__ import annotations

import socket
import struct

from dicom_listener.incoming_bytes import IncomingBytes
from dicom_listener.messages import MessageReader
from dicom_listener.pdu import P_DATA_TF, VALUE_HEAD_BYTES, ProtocolError, data_values, only_value

ASSOCIATE_BYTES_MAX = 1024 * 1024  # 128 contexts with 45 transfer syntaxes each have 0.3 MB
PDU_BYTES_MAX = 1024 * 1024  # of P-DATA-TF: some senders pass over the maximum that was negotiated, by a little
SMALL_PDU_BYTES_MAX = 1024  # release and abort have 4
LENGTH_MAX = {1: ASSOCIATE_BYTES_MAX, 4: PDU_BYTES_MAX, 5: SMALL_PDU_BYTES_MAX, 6: SMALL_PDU_BYTES_MAX,
              7: SMALL_PDU_BYTES_MAX, 2: ASSOCIATE_BYTES_MAX, 3: SMALL_PDU_BYTES_MAX}  # fmt: skip
STRAIGHT_BYTES_MIN = 65536  # smaller PDUs cost less where many are read at once
PDU_HEAD = struct.Struct(">BBL")


class IncomingPdus:
    """The PDUs of one connection.

    Args:
        usual_bytes: the maximum length that was offered to the peer.
        reader: takes the data.
    """

    def __init__(self, usual_bytes: int, reader: MessageReader) -> None:
        self._bytes = IncomingBytes(2 * (usual_bytes + PDU_HEAD.size))
        self._reader = reader

    @property
    def at_hand(self) -> bool:
        """Whether something of the next one has been read."""
        return self._bytes.at_hand

    def read(self, connection: socket.socket, *, patience_s: float, may_bring_data: bool) -> bytes | None:
        """Read one PDU; give it whole unless it was data.

        Args:
            connection: the socket, plain or TLS.
            patience_s: how long its rest may take, once its first byte is here.
            may_bring_data: an association is established.

        Raises:
            PeerGone: it has not come in time, or never will.
            ProtocolError: abort the association.
        """
        kind, _, length = PDU_HEAD.unpack(self._bytes.take(connection, PDU_HEAD.size, patience_s=patience_s))
        if kind not in LENGTH_MAX:
            raise ProtocolError("bytes that are no DICOM PDU")
        if length > LENGTH_MAX[kind]:
            raise ProtocolError(f"a PDU of type {kind} that claims {length} bytes; at most {LENGTH_MAX[kind]}")
        if kind != P_DATA_TF:
            body = self._bytes.take(connection, length, patience_s=patience_s)
            return PDU_HEAD.pack(kind, 0, length) + body
        if not may_bring_data:
            raise ProtocolError("data outside of an association")
        if length < STRAIGHT_BYTES_MIN or not self._read_straight(connection, length, patience_s):
            for value in data_values(self._bytes.take(connection, length, patience_s=patience_s)):
                self._reader.read(value)
        return None

    def _read_straight(self, connection: socket.socket, length: int, patience_s: float) -> bool:
        """Read a PDU's only value where the file is put together, without a copy; False: it has no such place."""
        head = only_value(self._bytes.take(connection, VALUE_HEAD_BYTES, patience_s=patience_s), length)
        place = self._reader.place_for(head) if head is not None else None
        if head is None or place is None:
            self._bytes.put_back(VALUE_HEAD_BYTES)
            return False
        self._bytes.fill(connection, place, patience_s=patience_s)
        self._reader.placed(head)
        return True
