"""Fetching images from a PACS by C-MOVE or C-GET, through the listener's own port (PS3.4 C.4.2, C.4.3).

C-MOVE makes the PACS push to the listener. C-GET brings the images here, and each is handed to the listener by C-STORE
as it came, byte for byte; the PACS is answered what the listener answers. Either way there is one way in, and an image
is acknowledged only when it is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicom_listener.pacs import IMPLICIT_VR_LITTLE_ENDIAN, SUCCESS, associated
from dicom_listener.peer import Peer, PeerUnreachable
from dicom_listener.statuses import StoreStatus
from triage.errors import TriageError

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PENDING = 0xFF00
SOME_FAILED = 0xB000
LOW_PRIORITY = 2  # PS3.7 9.1.4.1.3: what is pushed goes before what is fetched
INSTANCES_AT_ONCE = 50  # UIDs in one request: some PACS cut longer lists off

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image
)
OTHER_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Word Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection
    "1.2.840.10008.5.1.4.1.1.88.67",  # X-Ray Radiation Dose SR
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
)
# one context each: the PACS then sends an image in the transfer syntax that it is kept in
CT_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    IMPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian, retired
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, SV1
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
)

MEANING = {
    0x0122: "it does not offer this way of fetching (reconcile.retrieve)",
    0x0124: "it does not allow us to",
    0xA701: "it cannot count the matches",
    0xA702: "it could not send; is our listener reachable from it?",
    0xA801: "it does not know our AE title as a destination; enter AE title, host and port of the listener there",
    0xA900: "it does not take the request",
    0xFE00: "it broke off",
}


class Unfetched(TriageError):
    """The PACS did not send all that was asked for.

    Args:
        detail: why, as far as it said.
    """

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"The PACS did not send all that was asked for: {detail}.")


@dataclass(frozen=True)
class Wanted:
    """A study, one of its series, or some images of a series: the fewest keys that say what is missing."""

    study_instance_uid: str
    series_instance_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()

    def identifiers(self) -> list[Dataset]:
        """Give the requests' identifiers (PS3.4 C.4.2.1.4.1)."""
        if not self.sop_instance_uids:
            return [self._identifier("SERIES" if self.series_instance_uid else "STUDY")]
        uids = self.sop_instance_uids
        parts = [uids[start : start + INSTANCES_AT_ONCE] for start in range(0, len(uids), INSTANCES_AT_ONCE)]
        return [self._identifier("IMAGE", part) for part in parts]

    def _identifier(self, level: str, sop_instance_uids: Sequence[str] = ()) -> Dataset:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        identifier.StudyInstanceUID = self.study_instance_uid
        if self.series_instance_uid:
            identifier.SeriesInstanceUID = self.series_instance_uid
        if sop_instance_uids:
            identifier.SOPInstanceUID = list(sop_instance_uids)
        return identifier


class Retriever(Protocol):
    """A way of fetching."""

    def fetch(self, wanted: Wanted) -> None:
        """Let the PACS send what is wanted to the listener.

        Raises:
            Unfetched: it did not send all of it.
            PeerUnreachable: no association.
        """


class Mover:
    """Fetches by C-MOVE.

    Args:
        pacs: the PACS.
        destination: the listener's AE title, as the PACS knows it.
        timeout_s: for one answer.
    """

    def __init__(self, pacs: Peer, destination: str, *, timeout_s: float) -> None:
        self._pacs = pacs
        self._destination = destination
        self._timeout_s = timeout_s

    def fetch(self, wanted: Wanted) -> None:
        """Let the PACS push what is wanted; raises `Unfetched` or `PeerUnreachable`."""
        context = build_context(STUDY_ROOT_MOVE, IMPLICIT_VR_LITTLE_ENDIAN)
        with associated(self._pacs, [context], self._timeout_s) as pacs:
            for identifier in wanted.identifiers():
                _check(
                    pacs.send_c_move(identifier, self._destination, STUDY_ROOT_MOVE, priority=LOW_PRIORITY), "C-MOVE"
                )


class Getter:
    """Fetches by C-GET.

    Args:
        pacs: the PACS.
        listener: where each image goes.
        timeout_s: for one answer.
    """

    def __init__(self, pacs: Peer, listener: Peer, *, timeout_s: float) -> None:
        self._pacs = pacs
        self._listener = listener
        self._timeout_s = timeout_s

    def fetch(self, wanted: Wanted) -> None:
        """Take what is wanted and hand it to the listener; raises `Unfetched` or `PeerUnreachable`."""
        with ExitStack() as stack:
            relay = Relay(self._listener, stack, timeout_s=self._timeout_s)
            pacs = stack.enter_context(
                associated(
                    self._pacs,
                    get_contexts(),
                    self._timeout_s,
                    ext_neg=[build_role(sop_class, scp_role=True) for sop_class in (*CT_CLASSES, *OTHER_CLASSES)],
                    evt_handlers=[(evt.EVT_C_STORE, relay.hand_on)],
                )
            )
            for identifier in wanted.identifiers():
                _check(pacs.send_c_get(identifier, STUDY_ROOT_GET, priority=LOW_PRIORITY), "C-GET")


class Relay:
    """Hands images on to the listener as they came, over one association that is opened with the first of them.

    Args:
        listener: our own.
        stack: closes the association in the end.
        timeout_s: for one answer.
    """

    def __init__(self, listener: Peer, stack: ExitStack, *, timeout_s: float) -> None:
        self._listener = listener
        self._stack = stack
        self._timeout_s = timeout_s
        self._association: Association | None = None

    def hand_on(self, event: Any) -> int:
        """Answer a C-STORE of the PACS with what the listener answers."""
        try:
            if self._association is None:
                self._association = self._stack.enter_context(
                    associated(self._listener, _contexts_of(event.assoc), self._timeout_s)
                )
            return store_as_it_is(self._association, event.request, event.context.transfer_syntax)
        except (PeerUnreachable, ValueError, RuntimeError, OSError):
            return StoreStatus.OUT_OF_RESOURCES


def _contexts_of(association: Association) -> list[Any]:
    """Give what may come over an association, to propose it once more."""
    return [
        build_context(context.abstract_syntax, context.transfer_syntax[0])
        for context in association.accepted_contexts
        if context.abstract_syntax != STUDY_ROOT_GET
    ]


def store_as_it_is(association: Association, received: C_STORE, transfer_syntax_uid: str) -> int:
    """Send the bytes of a received C-STORE on, and give the status.

    pynetdicom's `send_c_store` would decode and encode them anew.

    Raises:
        ValueError: no such presentation context was accepted.
        RuntimeError: no answer.
    """
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = received.AffectedSOPClassUID
    request.AffectedSOPInstanceUID = received.AffectedSOPInstanceUID
    request.Priority = received.Priority
    request.DataSet = BytesIO(received.DataSet.getvalue())
    context = association._get_valid_context(
        received.AffectedSOPClassUID, transfer_syntax_uid, "scu", allow_conversion=False
    )
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    if response is None:
        raise RuntimeError("the listener gave no answer")
    return int(response.Status)


def get_contexts() -> list[Any]:
    """Give the presentation contexts of a C-GET: the request, and what may come."""
    contexts = [build_context(STUDY_ROOT_GET, IMPLICIT_VR_LITTLE_ENDIAN)]
    contexts += [build_context(sop_class, syntax) for sop_class in CT_CLASSES for syntax in CT_SYNTAXES]
    return contexts + [build_context(sop_class, list(CT_SYNTAXES[:2])) for sop_class in OTHER_CLASSES]


def _check(answers: Any, what: str) -> None:
    """Read the answers to their end.

    Raises:
        Unfetched: the last is no success.
    """
    last = Dataset()
    for last, _ in answers:
        if "Status" in last and last.Status == PENDING:
            continue
    if "Status" not in last:
        raise Unfetched(f"no answer to {what}")
    if last.Status == SUCCESS:
        return
    failed = last.get("NumberOfFailedSuboperations")
    if last.Status == SOME_FAILED:
        raise Unfetched(f"{failed if failed is not None else 'some'} images could not be sent")
    raise Unfetched(f"0x{last.Status:04X}, {MEANING.get(last.Status, 'unable to process')}")
