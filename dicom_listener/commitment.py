"""Storage Commitment Push Model as SCP (PS3.4 Annex J): says which images are kept, on the same association or another.

What is to be told stands in the ledger, so a sender that is away, or a listener that ends, only delays it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role

from dicom_listener.peer import Peer, PeerUnreachable, check_reachable
from dicom_listener.senders import Senders
from dicom_listener.uids import checked_uid
from triage.errors import StoreError
from triage.ledger.commitments import Commitment, Commitments, Reference

log = structlog.get_logger()

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST = 1  # Action Type ID, J.3.2
ALL_KEPT, SOME_FAILED = 1, 2  # Event Type IDs, J.3.3
NO_SUCH_OBJECT = 0x0112  # failure reasons, PS3.4 Table J.3-2
CLASS_INSTANCE_CONFLICT = 0x0119
SUCCESS = 0x0000
INVALID_ARGUMENT = 0x0115  # PS3.7 C.5.18
PROCESSING_FAILURE = 0x0110
SAME_ASSOCIATION_S = 0.2  # after the answer to the request, before the report goes out
RETRY_S = (5.0, 30.0, 120.0, 600.0, 1800.0)  # then every half hour
GIVE_UP_S = 24 * 3600.0
LOOK_EVERY_S = 1.0
ANSWER_S = 10.0


class CommitmentService:
    """Takes requests and tells their senders.

    Args:
        commitments: the ledger's list.
        folder: the storage folder: a row without its file is no commitment.
        senders: for the port on which a sender takes reports, `commitment_port`.
        ae_title: ours.
    """

    def __init__(self, commitments: Commitments, folder: Path, senders: Senders, *, ae_title: str) -> None:
        self._commitments = commitments
        self._folder = folder
        self._senders = senders
        self._ae_title = ae_title
        self._open: dict[str, Any] = {}  # transaction UID: the association that it was asked on
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commitment", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is left is told after the next start."""
        self._stopping.set()
        self._thread.join()

    def asked(self, event: Any) -> tuple[int, None]:
        """Take an N-ACTION and give its status."""
        if event.action_type != REQUEST:
            return 0x0123, None  # no such action, PS3.7 C.5.9
        request = event.action_information
        transaction = checked_uid(str(request.get("TransactionUID", "")).encode("ascii", "replace"))
        asked = request.get("ReferencedSOPSequence", [])
        if transaction is None or not asked:
            return INVALID_ARGUMENT, None
        names = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")
        uids = [(str(item.get(names[0], "")), str(item.get(names[1], ""))) for item in asked]
        try:
            references = judged(uids, self._commitments.kept([uid for _, uid in uids]), self._folder)
            self._commitments.add(
                transaction,
                ae_title=event.assoc.requestor.ae_title,
                host=event.assoc.requestor.address,
                references=references,
                now=time.time() + SAME_ASSOCIATION_S,
            )
        except StoreError:
            return PROCESSING_FAILURE, None
        self._open[transaction] = event.assoc
        return SUCCESS, None

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S / 4):
            try:
                for commitment in self._commitments.due(now=time.time()):
                    self._tell(commitment)
            except StoreError as error:
                log.error("commitment_waits_for_ledger", error_type=type(error.__cause__ or error).__name__)
                self._stopping.wait(LOOK_EVERY_S)

    def _tell(self, commitment: Commitment) -> None:
        association = self._open.pop(commitment.transaction_uid, None)
        told = association is not None and _report(association, commitment)
        if not told:
            told = self._call(commitment)
        now = time.time()
        if told:
            self._commitments.told(commitment, now=now)
        elif now - commitment.requested_at > GIVE_UP_S:
            self._commitments.gave_up(commitment, now=now)
            log.error("commitment_given_up", calling_ae_title=commitment.ae_title, attempts=commitment.attempts)
        else:
            wait_s = RETRY_S[min(commitment.attempts, len(RETRY_S) - 1)]
            self._commitments.try_again(commitment, at=now + wait_s)

    def _call(self, commitment: Commitment) -> bool:
        """Tell a sender on a new association, where its port is set."""
        port = self._senders.of(commitment.ae_title).commitment_port
        if port is None:
            return False
        try:
            check_reachable(Peer(commitment.host, port, commitment.ae_title))
        except PeerUnreachable:
            return False
        ae = AE(self._ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = ANSWER_S
        association = ae.associate(
            commitment.host,
            port,
            contexts=[build_context(PUSH_MODEL)],
            ae_title=commitment.ae_title,
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
        )
        if not association.is_established:
            return False
        try:
            return _report(association, commitment)
        finally:
            association.release()


def judged(asked: Sequence[tuple[str, str]], kept: Mapping[str, tuple[str, Path]], folder: Path) -> list[Reference]:
    """Say of each (SOP class, SOP instance) whether it is kept: by its row, and by its file."""
    references = []
    for sop_class, uid in asked:
        if uid not in kept or not (folder / kept[uid][1]).is_file():
            failure = NO_SUCH_OBJECT
        else:
            failure = 0 if kept[uid][0] == sop_class else CLASS_INSTANCE_CONFLICT
        references.append(Reference(sop_class, uid, failure))
    return references


def report_of(commitment: Commitment) -> tuple[Dataset, int]:
    """Give Event Information and Event Type ID of a report (PS3.4 Table J.3-2)."""
    report = Dataset()
    report.TransactionUID = commitment.transaction_uid
    kept = [_item(item) for item in commitment.references if not item.failure]
    failed = [_item(item) for item in commitment.references if item.failure]
    if kept:
        report.ReferencedSOPSequence = kept
    if failed:
        report.FailedSOPSequence = failed
    return report, SOME_FAILED if failed else ALL_KEPT


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    if reference.failure:
        item.FailureReason = reference.failure
    return item


def _report(association: Any, commitment: Commitment) -> bool:
    """Send an N-EVENT-REPORT; whether the sender has taken it."""
    if not association.is_established:
        return False
    report, event_type = report_of(commitment)
    try:
        status, _ = association.send_n_event_report(report, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    except (RuntimeError, ValueError, AttributeError):
        return False
    return "Status" in status and status.Status == SUCCESS
