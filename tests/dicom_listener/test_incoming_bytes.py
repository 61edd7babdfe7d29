"""The bytes of a connection come out as they were sent, however the network cuts them and wherever they are put."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.incoming_bytes import HEADS_BYTES, IncomingBytes, PeerGone

PATIENCE_S = 30.0
SIZES = st.sampled_from([1, 6, 12, 500, HEADS_BYTES - 1, HEADS_BYTES, HEADS_BYTES + 1, 70_000, 131_066])


@contextmanager
def connection_that_brings(pieces: list[bytes]) -> Iterator[socket.socket]:
    """Give the end of a TCP connection to which another thread sends, and which it closes then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    thread = threading.Thread(target=send_all, args=(sender, pieces))
    thread.start()
    try:
        with receiver:
            yield receiver
    finally:
        thread.join()


def send_all(sender: socket.socket, pieces: list[bytes]) -> None:
    with sender:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sender.sendall(piece)


def cut(content: bytes, lengths: list[int]) -> list[bytes]:
    pieces = []
    for length in lengths:
        pieces.append(content[:length])
        content = content[length:]
    return [*pieces, content]


def got(incoming: IncomingBytes, how: str, connection: socket.socket, size: int, *, patience_s: float) -> bytes:
    if how == "fill":
        place = bytearray(size)
        incoming.fill(connection, memoryview(place), patience_s=patience_s)
        return bytes(place)
    if how == "take twice":
        incoming.take(connection, size, patience_s=patience_s)
        incoming.put_back(size)
    return bytes(incoming.take(connection, size, patience_s=patience_s))


@given(steps=st.lists(st.tuples(st.sampled_from(["take", "fill", "take twice"]), SIZES), max_size=12),
       sent=st.lists(SIZES, max_size=8))  # fmt: skip
def test_bytes_come_out_as_they_were_sent(steps: list[tuple[str, int]], sent: list[int]) -> None:
    content = random.Random(1).randbytes(sum(size for _, size in steps))
    incoming = IncomingBytes(262_144)
    with connection_that_brings(cut(content, sent)) as connection:
        parts = [got(incoming, how, connection, size, patience_s=PATIENCE_S) for how, size in steps]

    assert b"".join(parts) == content


@pytest.mark.parametrize("how", ["take", "fill"])
def test_peer_that_closes_in_the_middle_is_gone(how: str) -> None:
    with connection_that_brings([b"x" * 99]) as connection, pytest.raises(PeerGone):
        got(IncomingBytes(262_144), how, connection, 100, patience_s=PATIENCE_S)


@pytest.mark.parametrize("how", ["take", "fill"])
def test_peer_that_sends_no_more_is_gone_when_its_time_is_up(how: str) -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.send(b"x" * 99)

        with pytest.raises(PeerGone):
            got(IncomingBytes(262_144), how, receiver, 100, patience_s=0.1)
