"""Takes images from other processes of this host, see `triage.intake_door`; what is behind it is C-STORE's."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer

import structlog

from dicom_listener.arrivals import Arrivals
from dicom_listener.disk import Bytes
from dicom_listener.header import read_header
from dicom_listener.incoming_data import TooLarge
from dicom_listener.part10 import split_file
from dicom_listener.receiver import Answer, Receiver, StoreRequest
from dicom_listener.recurring import RecurringLog
from dicom_listener.statuses import StoreStatus
from triage.errors import UnreadableInstance
from triage.intake_door import DOOR, Brought, Caller, as_json, door_address, receive_frame, send_frame

log = structlog.get_logger()
recurring = RecurringLog()

HEAD_BYTES = 1024 * 1024  # of a file, gathered to know whose it is; headers are smaller
SIZE_NOT_KNOWN = 2**62
DOOR_MODE = 0o660  # who may write the storage folder by group may bring images


class CallerGone(Exception):
    """The caller closed, or said nothing more, inside an instance."""


class LocalDoor:
    """The listener's Unix socket.

    Args:
        folder: the storage folder, which this process holds alone as listener.
        receiver: takes the data sets.
        arrivals: what completion is judged from.
        next_number: numbers associations and callers alike.
        most: callers at once; more are turned away.
        timeout_s: a caller without a word for this long is dropped.
    """

    def __init__(
        self,
        folder: Path,
        receiver: Receiver,
        arrivals: Arrivals,
        next_number: Callable[[], int],
        *,
        most: int,
        timeout_s: float,
    ) -> None:
        self._path = folder / DOOR
        self._path.unlink(missing_ok=True)  # of a listener that was killed
        with door_address(folder) as address:
            self._server = _Server(address, _Handler)
        self._path.chmod(DOOR_MODE)
        self._server.services = _Services(receiver, arrivals, next_number, timeout_s)
        self._server.most = most
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="door", daemon=True)

    def start(self) -> None:
        """Begin to take images."""
        self._thread.start()

    def stop(self) -> None:
        """Close the door, and on callers who stand in it."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._path.unlink(missing_ok=True)
        self._server.end_callers()


@dataclass(frozen=True)
class _Services:
    receiver: Receiver
    arrivals: Arrivals
    next_number: Callable[[], int]
    timeout_s: float


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    services: _Services
    most: int

    def __init__(self, address: str, handler: type[BaseRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def verify_request(self, request: socket.socket, client_address: object) -> bool:  # type: ignore[override]  # noqa: ARG002
        with self._lock:
            if len(self._open) >= self.most:
                recurring.warning("caller_turned_away", reason="too many at the local door")
                return False
            self._open.add(request)
            return True

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def end_callers(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseRequestHandler):
    """One caller."""

    server: _Server
    request: socket.socket

    def handle(self) -> None:
        """Take instances until the caller goes."""
        services = self.server.services
        self.request.settimeout(services.timeout_s)
        number = services.next_number()
        whole = False
        try:
            caller = self._caller()
            services.arrivals.association_opened(number, calling_ae_title=caller.name)
            while (frame := receive_frame(self.request)) is not None:
                brought = self._take(caller, number, frame)
                send_frame(self.request, as_json(brought))
            whole = True
        except (CallerGone, OSError, ValueError, TypeError) as error:
            recurring.warning("local_door_broken_off", association=number, error_type=type(error).__name__)
        finally:
            services.arrivals.association_ended(number, aborted=not whole, now=time.time())

    def _caller(self) -> Caller:
        frame = receive_frame(self.request)
        caller = Caller(**json.loads(frame or b"{}"))
        return Caller(caller.name[:16], caller.study_instance_uid)

    def _frames(self, first: bytes) -> Iterator[bytes]:
        """Give the frames of one instance.

        Raises:
            CallerGone: there is no end of it.
        """
        frame: bytes | None = first
        while frame:
            yield frame
            try:
                frame = receive_frame(self.request)
            except OSError as error:
                raise CallerGone from error
        if frame is None:
            raise CallerGone

    def _take(self, caller: Caller, number: int, first: bytes) -> Brought:
        frames = self._frames(first)
        head = bytearray()
        for frame in frames:
            head += frame
            if len(head) >= HEAD_BYTES:
                break
        rest = next(frames, b"")
        file = _File.read(bytes(head), whole=not rest)
        if caller.study_instance_uid and file.study_instance_uid != caller.study_instance_uid:
            answer = Answer(StoreStatus.DOES_NOT_MATCH, "an image of another study than the address names")
        else:
            answer = self._kept(file.request(caller.name, number), chain([file.data, rest], frames))
        for _ in frames:  # what was refused is read to its end, to be able to answer
            pass
        return Brought(
            answer.status,
            file.fault or answer.comment,
            file.sop_class_uid,
            file.sop_instance_uid,
            file.study_instance_uid,
        )

    def _kept(self, request: StoreRequest, parts: Iterable[Bytes]) -> Answer:
        receiver = self.server.services.receiver
        data = receiver.begin(request)
        try:
            for part in parts:
                data.append(part)
            return receiver.take(request, data)
        except TooLarge:
            return Answer(StoreStatus.OUT_OF_RESOURCES, "beyond listener.max_object_bytes")
        except OSError:
            return Answer(StoreStatus.OUT_OF_RESOURCES, "the disk takes no data")
        finally:
            data.discard()


@dataclass(frozen=True)
class _File:
    """The beginning of a Part 10 file; where it is none, all is data, and the receiver says why it is refused."""

    transfer_syntax_uid: str
    data: Bytes
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    fault: str = ""  # why it is none

    @classmethod
    def read(cls, head: bytes, *, whole: bool) -> _File:
        """Read the beginning of a file; its UIDs are the data set's, as file metas are often wrong."""
        try:
            meta, data = split_file(head)
        except UnreadableInstance:
            return cls("", head, fault="no DICOM file (PS3.10)")
        try:
            header = read_header(data, meta.transfer_syntax_uid, total=len(data) if whole else SIZE_NOT_KNOWN)
        except UnreadableInstance:
            return cls(meta.transfer_syntax_uid, data)
        return cls(
            meta.transfer_syntax_uid, data, header.sop_class_uid, header.sop_instance_uid, header.study_instance_uid
        )

    def request(self, caller: str, number: int) -> StoreRequest:
        """Give what a C-STORE request would have said."""
        return StoreRequest(
            sop_class_uid=self.sop_class_uid.encode(),
            sop_instance_uid=self.sop_instance_uid.encode(),
            transfer_syntax_uid=self.transfer_syntax_uid,
            calling_ae_title=caller,
            called_ae_title="",
            association=number,
        )
