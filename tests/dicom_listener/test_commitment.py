"""Storage commitment over real associations: what is kept is told, what is not is told too, and nobody is forgotten."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, evt

from dicom_listener import commitment
from dicom_listener.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from tests.builders import ct_series
from tests.dicom_listener.conftest import Running, eventually, push, running
from triage.ledger import Ledger
from triage.ledger.commitments import Commitments


class Reports:
    """What a sender was told."""

    def __init__(self) -> None:
        self.received: list[tuple[int, Dataset]] = []

    def take(self, event: Any) -> tuple[int, None]:
        self.received.append((event.event_type, event.event_information))
        return 0x0000, None


def request(references: list[tuple[str, str]], transaction_uid: str) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        ds.ReferencedSOPSequence.append(item)
    return ds


@contextmanager
def asking(listener: Running, ds: Dataset, reports: Reports) -> Iterator[int]:
    """Ask for commitment and hold the association open; give the status."""
    association = AE("PACS").associate(
        "127.0.0.1", listener.port, contexts=[build_context(PUSH_MODEL)], ae_title="ICHTRIAGE",
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.take)],
    )  # fmt: skip
    assert association.is_established
    try:
        status, _ = association.send_n_action(ds, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        yield status.Status
    finally:
        association.release()


def test_kept_images_are_committed_on_the_same_association(listener: Running) -> None:
    series = ct_series(slices=3)
    push(listener.port, series)
    transaction, reports = generate_uid(), Reports()

    with asking(
        listener, request([(ds.SOPClassUID, ds.SOPInstanceUID) for ds in series], transaction), reports
    ) as status:
        assert status == 0x0000
        [(event_type, told)] = eventually(lambda: reports.received, timeout_s=40.0)

    assert event_type == 1
    assert told.TransactionUID == transaction
    assert {item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence} == {
        ds.SOPInstanceUID for ds in series
    }
    assert "FailedSOPSequence" not in told


def test_what_is_not_kept_is_said_with_its_reason(listener: Running) -> None:
    kept, lost = ct_series(slices=2)
    push(listener.port, [kept, lost])
    rows = {item.sop_instance_uid: item for item in listener.studies.instances_of(lost.StudyInstanceUID)}
    (listener.folder / rows[lost.SOPInstanceUID].path).unlink()
    never = generate_uid()
    reports = Reports()
    asked = [(kept.SOPClassUID, kept.SOPInstanceUID), (lost.SOPClassUID, lost.SOPInstanceUID),
             (kept.SOPClassUID, never), ("1.2.840.10008.5.1.4.1.1.4", kept.SOPInstanceUID)]  # fmt: skip

    with asking(listener, request(asked, generate_uid()), reports):
        [(event_type, told)] = eventually(lambda: reports.received, timeout_s=40.0)

    assert event_type == 2
    failures = {item.ReferencedSOPInstanceUID: item.FailureReason for item in told.FailedSOPSequence}
    assert failures == {lost.SOPInstanceUID: 0x0112, never: 0x0112, kept.SOPInstanceUID: 0x0119}
    assert len(told.ReferencedSOPSequence) == 1


def test_request_without_transaction_or_references_is_refused(listener: Running) -> None:
    with asking(listener, request([], generate_uid()), Reports()) as status:
        assert status == 0x0115


def test_sender_that_hung_up_is_called_and_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment, "RETRY_S", (0.5, 0.5, 0.5))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [ct] = ct_series(slices=1)
    reports = Reports()
    with running(tmp_path, senders=[{"ae_title": "PACS", "commitment_port": port}]) as listener:
        push(listener.port, [ct])
        with asking(listener, request([(ct.SOPClassUID, ct.SOPInstanceUID)], generate_uid()), reports):
            pass  # hangs up before the report; nobody listens on its port yet
        commitments = Commitments(Ledger(tmp_path / "ledger.sqlite"))
        eventually(lambda: commitments.waiting_count() == 0 or _attempts(commitments) >= 1, timeout_s=40.0)
        if commitments.waiting_count():
            with _report_receiver(port, reports):
                eventually(lambda: commitments.waiting_count() == 0, timeout_s=60.0)
        commitments._ledger.close()

    assert [event_type for event_type, _ in reports.received] == [1]


def _attempts(commitments: Commitments) -> int:
    return max((item.attempts for item in commitments.due(now=1e12)), default=0)


@contextmanager
def _report_receiver(port: int, reports: Reports) -> Iterator[None]:
    ae = AE("PACS")
    ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.take)])
    try:
        yield
    finally:
        server.shutdown()
        for thread in threading.enumerate():
            if thread.name.startswith("AcceptorThread") and getattr(thread, "ae", None) is ae:
                thread.join(5)
