"""A DICOM peer made of bytes on a socket, to say what no library would say."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

CT_IMAGE_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR = b"1.2.840.10008.1.2.1"
A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 2, 3, 4, 5, 6, 7


class RawPeer:
    """One connection."""

    def __init__(self, port: int, *, timeout_s: float = 10.0) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.connection.close()

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def receive(self) -> tuple[int, bytes]:
        """Read one PDU: its type and body; type 0: the peer closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", head)
        return kind, self._exactly(length)

    def associate(self, contexts: list[tuple[bytes, list[bytes]]] | None = None) -> int:
        """Ask for an association and give the type of the answer."""
        self.send(associate_rq(contexts or [(CT_IMAGE_STORAGE, [EXPLICIT_VR])]))
        kind, self.answer = self.receive()
        return kind

    def store(self, data: bytes, sop_instance_uid: str, *, pdv_bytes: int = 16000) -> int:
        """Send a C-STORE and give its status."""
        self.send(p_data(1, 3, store_rq(sop_instance_uid)))
        for start in range(0, len(data), pdv_bytes):
            last = start + pdv_bytes >= len(data)
            self.send(p_data(1, 2 if last else 0, data[start : start + pdv_bytes]))
        kind, body = self.receive()
        assert kind == P_DATA, f"answered by a PDU of type {kind}"
        return status_of(body)

    def release(self) -> int:
        self.send(pdu(A_RELEASE_RQ, bytes(4)))
        return self.receive()[0]

    def is_closed_within(self, seconds: float) -> bool:
        """Whether the peer closes; what it still says is read."""
        self.connection.settimeout(seconds)
        try:
            while self.connection.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            try:
                part = self.connection.recv(count - len(content))
            except ConnectionError:
                return b""
            if not part:
                return b""
            content += part
        return content


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def p_data(context_id: int, control: int, content: bytes) -> bytes:
    return pdu(P_DATA, struct.pack(">LBB", len(content) + 2, context_id, control) + content)


def associate_rq(
    contexts: list[tuple[bytes, list[bytes]]],
    called: bytes = b"ICHTRIAGE",
    *,
    calling: bytes = b"RAW",
    more: bytes = b"",
) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2), with `more` sub-items of user information."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntaxes) in enumerate(contexts):
        sub_items = item(0x30, abstract) + b"".join(item(0x40, syntax) for syntax in syntaxes)
        items += item(0x20, bytes([2 * number + 1, 0, 0, 0]) + sub_items)
    items += item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") + more)
    return pdu(1, struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32) + items)


def store_rq(sop_instance_uid: str, *, has_data: bool = True, message_id: int = 1) -> bytes:
    """A C-STORE-RQ command set (PS3.7 9.3.1.1)."""
    elements = [
        (0x0002, CT_IMAGE_STORAGE),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0700, struct.pack("<H", 2)),
        (0x0800, struct.pack("<H", 1 if has_data else 0x0101)),
        (0x1000, sop_instance_uid.encode()),
    ]
    return command_set(elements)


def command_set(elements: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(
        struct.pack("<HHL", 0, element, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
        for element, value in elements
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def status_of(body: bytes) -> int:
    """Read (0000,0900) of a response."""
    start = body.index(struct.pack("<HHL", 0, 0x0900, 2))
    return int(struct.unpack_from("<H", body, start + 8)[0])


def item(kind: int, content: bytes) -> bytes:
    """One item of variable length (PS3.8 9.3.2)."""
    return struct.pack(">BBH", kind, 0, len(content)) + content
