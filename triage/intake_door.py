"""The door by which another process of this host brings images to the listener: frames on a Unix socket.

The socket lies in the storage folder, so whoever may open it may write there anyway. A caller says who it is and then
sends instances, each as frames that end with an empty one; each is answered by a frame. Closing between two instances
is what a release is to an association, closing inside one is an abort.

    caller      frame: JSON of `Caller`
    caller      frames: a Part 10 file in pieces; an empty frame
    listener    frame: JSON of `Brought`
    ...
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from triage.errors import TriageError

DOOR = Path("intake.sock")  # below the storage folder
FRAME_BYTES_MAX = 1024 * 1024
TIMEOUT_S = 60.0  # of one frame
_LENGTH = struct.Struct(">L")


class DoorClosed(TriageError):
    """The listener does not answer at its door."""


@dataclass(frozen=True)
class Caller:
    """Who brings images.

    Attributes:
        name: stands where a sender's calling AE title does.
        study_instance_uid: images of other studies are refused; empty: any study.
    """

    name: str
    study_instance_uid: str = ""


@dataclass(frozen=True)
class Brought:
    """What became of one instance.

    Attributes:
        status: as a C-STORE is answered, PS3.4 Table B.2-1; 0x0000: durable.
        comment: why not.
        sop_class_uid: as the data set names it; empty where it names none. The others alike.
    """

    status: int
    comment: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""


@contextmanager
def door_address(folder: Path) -> Iterator[str]:
    """Give the address of the door of a storage folder; the path itself may be longer than a socket's address."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{DOOR}"
    finally:
        os.close(descriptor)


def send_frame(connection: socket.socket, content: bytes) -> None:
    """Send one frame.

    Raises:
        OSError: the other side has gone.
    """
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive_frame(connection: socket.socket) -> bytes | None:
    """Give the next frame; None: the other side closed before it.

    Raises:
        OSError: it closed within, took too long, or claims more than `FRAME_BYTES_MAX`.
    """
    head = _receive(connection, _LENGTH.size)
    if not head:
        return None
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else FRAME_BYTES_MAX + 1
    if length > FRAME_BYTES_MAX:
        raise OSError(f"a frame of {length} bytes; at most {FRAME_BYTES_MAX}")
    content = _receive(connection, length)
    if len(content) < length:
        raise OSError(f"a frame ends after {len(content)} of {length} bytes")
    return content


def as_json(value: Caller | Brought) -> bytes:
    """Write who calls, or what became of an instance, for a frame."""
    return json.dumps(asdict(value)).encode()


def _receive(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content), socket.MSG_WAITALL)
        if not part:
            break
        content += part
    return content


class Bringer:
    """A caller at the door.

    Args:
        folder: the storage folder that the listener and this process share.
        caller: who brings images.

    Raises:
        DoorClosed: no listener serves the folder.
    """

    def __init__(self, folder: Path, caller: Caller) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(TIMEOUT_S)
        try:
            with door_address(folder) as address:
                self._connection.connect(address)
            send_frame(self._connection, as_json(caller))
        except OSError as error:
            self._connection.close()
            raise DoorClosed(
                f"The listener takes no images just now ({type(error).__name__}). Start `ich-triage listen` on the "
                "same storage folder, then send them again."
            ) from error

    def send(self, part: bytes | memoryview) -> None:
        """Send the next part of an instance's file.

        Raises:
            DoorClosed: the listener has gone; what it has not answered is not kept.
        """
        try:
            for start in range(0, len(part), FRAME_BYTES_MAX):
                send_frame(self._connection, bytes(part[start : start + FRAME_BYTES_MAX]))
        except OSError as error:
            raise DoorClosed("The listener has gone. Send what it has not answered again.") from error

    def end(self) -> Brought:
        """End an instance, and wait until it is durable or refused.

        Raises:
            DoorClosed: the listener has gone; whether the instance is kept is not known. Send it again.
        """
        try:
            send_frame(self._connection, b"")
            answer = receive_frame(self._connection)
        except OSError as error:
            raise DoorClosed("The listener has gone. Send what it has not answered again.") from error
        if answer is None:
            raise DoorClosed("The listener has closed its door. Send what it has not answered again.")
        return Brought(**json.loads(answer))

    def close(self) -> None:
        """Go; what was not ended is dropped."""
        self._connection.close()
