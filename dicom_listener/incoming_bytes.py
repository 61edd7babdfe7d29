"""What a peer sends, as exactly as many bytes as are asked for, with as few calls to the kernel as can be.

Each call hands Python's lock to another association and waits to have it back, so calls are what limits a listener that
serves several senders: a PDU of 128 KiB costs one or two.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Sequence

_TIMEVAL = struct.Struct("@ll")  # of the C library: seconds, microseconds
HEADS_BYTES = 4096  # read ahead where large parts have a place of their own: the heads of the next one


class PeerGone(Exception):
    """The connection closed, or the peer stopped in the middle of a PDU."""


class IncomingBytes:
    """The bytes of one connection, read ahead of the PDU that is being taken, but never waited for.

    Args:
        size: what is read at most at once; twice the usual PDU lets the next one come along.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ahead = HEADS_BYTES
        self._buffer = bytearray(0)  # made when the first byte comes: idle connections cost nothing
        self._start = 0
        self._end = 0
        self._patience_set_s = 0.0

    @property
    def at_hand(self) -> bool:
        """Whether bytes have been read that were not taken yet."""
        return self._end > self._start

    def take(self, connection: socket.socket, count: int, *, patience_s: float) -> memoryview:
        """Give the next `count` bytes; valid until the next call.

        Args:
            connection: the socket, plain or TLS.
            count: of bytes.
            patience_s: how long all of them may take, once the first is here.

        Raises:
            PeerGone: they have not come in time, or never will.
        """
        if count > HEADS_BYTES:
            self._ahead = self._size
        self._make_room(count)
        if self._end - self._start < count:
            missing = count - (self._end - self._start)
            room = memoryview(self._buffer)[self._end : self._end + max(missing, self._ahead)]
            self._end += self._read(connection, [room], missing, patience_s)
        taken = memoryview(self._buffer)[self._start : self._start + count]
        self._start += count
        return taken

    def put_back(self, count: int) -> None:
        """Let the bytes that were taken last be taken again."""
        self._start -= count

    def fill(self, connection: socket.socket, place: memoryview, *, patience_s: float) -> None:
        """Put the next bytes into memory of the caller's, those that are not at hand yet without a copy.

        Args:
            connection: the socket, plain or TLS.
            place: as many bytes as it holds.
            patience_s: how long all of them may take.

        Raises:
            PeerGone: they have not come in time, or never will.
        """
        self._ahead = HEADS_BYTES
        at_hand = min(len(place), self._end - self._start)
        place[:at_hand] = memoryview(self._buffer)[self._start : self._start + at_hand]
        self._start += at_hand
        if at_hand < len(place):
            self._make_room(HEADS_BYTES)
            rest = place[at_hand:]
            ahead = memoryview(self._buffer)[:HEADS_BYTES]
            self._end = self._read(connection, [rest, ahead], len(rest), patience_s) - len(rest)

    def _make_room(self, count: int) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + count <= len(self._buffer):
            return
        ahead = self._buffer[self._start : self._end]
        if count > len(self._buffer):
            self._buffer = bytearray(max(self._ahead, count))
        self._buffer[: len(ahead)] = ahead
        self._start, self._end = 0, len(ahead)

    def _read(self, connection: socket.socket, places: Sequence[memoryview], count: int, patience_s: float) -> int:
        """Read at least `count` bytes, which the first place holds, and what else is here; give how many were read."""
        deadline = time.monotonic() + patience_s
        try:
            if isinstance(connection, ssl.SSLSocket):
                read = self._read_by_tls(connection, places[0], count, deadline)
                connection.settimeout(patience_s)  # for what is sent
            else:
                self._set_patience(connection, patience_s)
                read = self._read_plain(connection, places, count, deadline)
            if read < sum(map(len, places)):  # all that is here; else the next read comes at once
                acknowledge_at_once(connection)
        except OSError as error:
            raise PeerGone from error
        return read

    def _set_patience(self, connection: socket.socket, patience_s: float) -> None:
        if patience_s != self._patience_set_s:  # the kernel's own limit; Python's costs a poll before each call
            limit_calls(connection, socket.SO_RCVTIMEO, patience_s)
            self._patience_set_s = patience_s

    def _read_plain(self, connection: socket.socket, places: Sequence[memoryview], count: int, deadline: float) -> int:
        read = _some(connection.recvmsg_into(places)[0])  # as much as is here
        while read < count:  # the rest: the kernel waits for the whole of it
            _check_time(deadline)
            read += _some(connection.recv_into(places[0][read:count], 0, socket.MSG_WAITALL))
        return read

    def _read_by_tls(self, connection: ssl.SSLSocket, place: memoryview, count: int, deadline: float) -> int:
        read = 0
        while read < count:
            _check_time(deadline)
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            read += _some(connection.recv_into(place[read:]))
        return read


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise PeerGone


def _some(received: int) -> int:
    if not received:
        raise PeerGone
    return received


def limit_calls(connection: socket.socket, option: int, seconds: float) -> None:
    """Let the kernel end calls on a socket after so long: SO_RCVTIMEO or SO_SNDTIMEO."""
    whole = int(seconds)
    connection.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(whole, int((seconds - whole) * 1e6)))


def acknowledge_at_once(connection: socket.socket) -> None:
    """Let the kernel acknowledge without delay.

    A sender with Nagle's algorithm waits for it with the end of each image, 40 ms each time. The option lasts for a few
    segments only, so it is set after each read.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
