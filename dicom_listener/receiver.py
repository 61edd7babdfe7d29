"""From one C-STORE request to its status: check, write, record, and only then Success."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from dicom_listener.arrivals import Arrivals
from dicom_listener.header import BadUid, Header, read_header
from dicom_listener.incoming_data import IncomingData
from dicom_listener.instance_store import InstanceStore, instance_path
from dicom_listener.instances import instance_from
from dicom_listener.metrics import Metrics
from dicom_listener.part10 import file_header
from dicom_listener.quarantine import QuarantineRoom
from dicom_listener.recorder import Recorder
from dicom_listener.recurring import RecurringLog
from dicom_listener.senders import Senders
from dicom_listener.statuses import StoreStatus
from dicom_listener.uids import checked_uid
from triage.errors import StoreError, UnreadableInstance
from triage.ledger.intake import Quarantined, Received, Registered

log = structlog.get_logger()
recurring = RecurringLog()

FREE_SPACE_EVERY_S = 0.2  # how often the disk is asked; in between no more than some hundred MB can come


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request without its data set (PS3.7 9.1.1.1), and where it came from; UIDs as the bytes sent."""

    sop_class_uid: bytes
    sop_instance_uid: bytes
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    association: int


@dataclass(frozen=True)
class Answer:
    """What the sender is told.

    Attributes:
        status: PS3.4 Table B.2-1.
        comment: (0000,0902) Error Comment, at most 64 characters; empty on success.
    """

    status: StoreStatus
    comment: str = ""


class Receiver:
    """Takes data sets from any number of associations at once.

    Args:
        store: where the files go.
        recorder: what makes them durable and known.
        arrivals: what completion is judged from.
        senders: what is set for each of them.
        metrics: counts statuses, bytes and the time to an answer.
        quarantine: how much is kept of what is no instance.
        min_free_bytes: below this much free disk, images are refused before the disk is full.
        max_object_bytes: of one data set.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: InstanceStore,
        recorder: Recorder,
        arrivals: Arrivals,
        senders: Senders,
        metrics: Metrics,
        quarantine: QuarantineRoom,
        *,
        min_free_bytes: int,
        max_object_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._arrivals = arrivals
        self._senders = senders
        self._metrics = metrics
        self._quarantine = quarantine
        self._min_free_bytes = min_free_bytes
        self._max_object_bytes = max_object_bytes
        self._clock = clock
        self._low_disk = False
        self._looked_at = -FREE_SPACE_EVERY_S  # the disk's free bytes, seconds of the monotonic clock
        self._lock = threading.Lock()

    def begin(self, request: StoreRequest) -> IncomingData:
        """Make room for a data set."""
        header = file_header(
            sop_class_uid=checked_uid(request.sop_class_uid) or "",
            sop_instance_uid=checked_uid(request.sop_instance_uid) or "",
            transfer_syntax_uid=request.transfer_syntax_uid,
            source_ae_title=request.calling_ae_title,
        )
        return IncomingData(self._store, header, limit_bytes=self._max_object_bytes)

    def take(self, request: StoreRequest, data: IncomingData) -> Answer:
        """Keep one data set as it came and give its status; never raises.

        Args:
            request: the command.
            data: the whole data set.
        """
        began = time.perf_counter()
        answer = self._answer(request, data)
        self._metrics.stored(answer.status, data.size, time.perf_counter() - began)
        return answer

    def refused(self, answer: Answer) -> None:
        """Count a request that was refused before there was a whole data set."""
        self._metrics.stored(answer.status, 0, 0.0)

    def free_bytes(self) -> int:
        """Give how much may still be written."""
        return self._store.free_bytes()

    def disk_is_low(self) -> bool:
        """Whether images are refused for want of room."""
        return self._store.free_bytes() < self._min_free_bytes

    def _answer(self, request: StoreRequest, data: IncomingData) -> Answer:
        try:
            return self._take(request, data)
        except StoreError as error:
            recurring.error("ledger_refused_instance", error_type=type(error.__cause__ or error).__name__)
            return Answer(StoreStatus.OUT_OF_RESOURCES, "the ledger takes no rows")
        except OSError as error:
            recurring.error("disk_refused_instance", error_type=type(error).__name__, code=error.errno)
            return Answer(StoreStatus.OUT_OF_RESOURCES, "the disk takes no data")

    def _take(self, request: StoreRequest, data: IncomingData) -> Answer:
        if self._disk_is_low():
            return Answer(StoreStatus.OUT_OF_RESOURCES, "the disk is nearly full")
        data.begin_file()  # while the header is read and the data set hashed
        try:
            header = read_header(
                data.head,
                request.transfer_syntax_uid,
                total=data.size,
                character_set=self._senders.of(request.calling_ae_title).character_set,
            )
            _check_uids(request, header)
        except BadUid as error:
            return self._refuse(request, data, StoreStatus.DOES_NOT_MATCH, str(error))
        except UnreadableInstance as error:
            return self._refuse(request, data, StoreStatus.CANNOT_UNDERSTAND, str(error))
        self._keep(request, header, data)
        return Answer(StoreStatus.SUCCESS)

    def _keep(self, request: StoreRequest, header: Header, data: IncomingData) -> None:
        blake3 = data.blake3()
        path = instance_path(header.study_instance_uid, header.sop_instance_uid, blake3)
        instance = instance_from(
            header,
            path=path,
            transfer_syntax_uid=request.transfer_syntax_uid,
            size_bytes=data.size,
            blake3=blake3,
            received_at=self._clock(),
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
        )
        # before the row: the study must not be judged complete between its last row and this note
        self._arrivals.image(header.study_instance_uid, association=request.association, now=instance.received_at)
        data.keep(path)  # before the row: whatever the ledger names is on the disk
        result = self._recorder.record(
            Received(instance, header.patient, self._senders.of(request.calling_ae_title).priority)
        )
        if result is Registered.CONFLICT:
            recurring.warning("instance_conflict", calling_ae_title=request.calling_ae_title, bytes=data.size)

    def _refuse(self, request: StoreRequest, data: IncomingData, status: StoreStatus, reason: str) -> Answer:
        """Keep the data where an administrator can look at them; the sender still owns the image."""
        blake3 = data.blake3()
        if not self._quarantine.take(data.size, blake3):
            self._metrics.count("ich_listener_quarantine_refused_total")
            recurring.warning("quarantine_full", calling_ae_title=request.calling_ae_title, reason=reason)
            return Answer(StoreStatus.OUT_OF_RESOURCES, "the quarantine is full")
        path = data.quarantine(blake3)
        self._recorder.quarantine(
            Quarantined(
                path=path,
                size_bytes=data.size,
                received_at=self._clock(),
                calling_ae_title=request.calling_ae_title,
                status=status,
                reason=reason,
            )
        )
        recurring.warning(
            "instance_quarantined", calling_ae_title=request.calling_ae_title, status=f"0x{status:04X}", reason=reason
        )
        return Answer(status, reason[:64])

    def _disk_is_low(self) -> bool:
        """Whether to refuse; says so once, and once more when there is room again."""
        now = time.monotonic()
        if not self._low_disk and now - self._looked_at < FREE_SPACE_EVERY_S:
            return False
        self._looked_at = now
        free = self._store.free_bytes()
        low = free < self._min_free_bytes
        with self._lock:
            changed, self._low_disk = low != self._low_disk, low
        if changed and low:
            log.error("disk_low", bytes=free, setting="listener.min_free_bytes")
        elif changed:
            log.info("disk_has_room", bytes=free)
        return low


def _check_uids(request: StoreRequest, header: Header) -> None:
    """Compare command and data set (PS3.4 B.2.3, Data Set does not match SOP Class)."""
    pairs = (
        ("SOP Class UID", request.sop_class_uid, header.sop_class_uid),
        ("SOP Instance UID", request.sop_instance_uid, header.sop_instance_uid),
    )
    for name, commanded, found in pairs:
        uid = checked_uid(commanded)
        if uid is None:
            raise BadUid(f"{name} of the command")
        if uid != found:
            raise UidMismatch(name)


class UidMismatch(BadUid):
    """The command names another instance or class than the data set does."""

    def __init__(self, name: str) -> None:
        UnreadableInstance.__init__(self, f"{name} of command and data set differ")
