"""What a peer sends, as exactly as many bytes as are asked for, with as few calls to the kernel as can be.

Each call hands Python's lock to another association and waits to have it back, so calls are what limits a listener that
serves several senders: a PDU of 128 KiB costs one or two.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time

_TIMEVAL = struct.Struct("@ll")  # of the C library: seconds, microseconds


class PeerGone(Exception):
    """The connection closed, or the peer stopped in the middle of a PDU."""


class IncomingBytes:
    """The bytes of one connection, read ahead of the PDU that is being taken, but never waited for.

    Args:
        size: what is read at most at once; twice the usual PDU lets the next one come along.
    """

    def __init__(self, size: int) -> None:
        self._size = size
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
        self._make_room(count)
        if self._end - self._start < count:
            try:
                if isinstance(connection, ssl.SSLSocket):
                    self._fill_by_tls(connection, count, patience_s)
                else:
                    self._fill(connection, count, patience_s)
            except OSError as error:
                raise PeerGone from error
        taken = memoryview(self._buffer)[self._start : self._start + count]
        self._start += count
        return taken

    def _make_room(self, count: int) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + count <= len(self._buffer):
            return
        ahead = self._buffer[self._start : self._end]
        if count > len(self._buffer):
            self._buffer = bytearray(max(self._size, count))
        self._buffer[: len(ahead)] = ahead
        self._start, self._end = 0, len(ahead)

    def _fill(self, connection: socket.socket, count: int, patience_s: float) -> None:
        if patience_s != self._patience_set_s:  # the kernel's own limit; Python's costs a poll before each call
            limit_calls(connection, socket.SO_RCVTIMEO, patience_s)
            self._patience_set_s = patience_s
        view = memoryview(self._buffer)
        deadline = time.monotonic() + patience_s
        if self._start == self._end:  # a new PDU: as much as is here
            self._end += self._received(connection.recv_into(view[self._end :]), deadline)
        while (missing := count - (self._end - self._start)) > 0:  # its rest: the kernel waits for the whole of it
            part = connection.recv_into(view[self._end : self._end + missing], 0, socket.MSG_WAITALL)
            self._end += self._received(part, deadline, more=part < missing)
        acknowledge_at_once(connection)

    def _fill_by_tls(self, connection: ssl.SSLSocket, count: int, patience_s: float) -> None:
        view = memoryview(self._buffer)
        deadline = time.monotonic() + patience_s
        while self._end - self._start < count:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            self._end += self._received(connection.recv_into(view[self._end :]), deadline, more=True)
        connection.settimeout(patience_s)  # for what is sent
        acknowledge_at_once(connection)

    def _received(self, part: int, deadline: float, *, more: bool = False) -> int:
        """Give what was read, if it was anything and, where more must come, time is left."""
        if not part or (more and time.monotonic() >= deadline):
            raise PeerGone
        return part


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
