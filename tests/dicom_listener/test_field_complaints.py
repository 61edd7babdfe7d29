"""What users of other receivers complain of, one test for each complaint and each trap that concerns intake.

The numbers are those of the field's list: "complaint 9" is the large CT that aborts. Every test is a real association
with a real listener; most share one, as what one sender does must not be felt by the next.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification
from structlog.testing import capture_logs

from dicom_listener.commitment import PUSH_MODEL
from dicom_listener.listener import Listener
from dicom_listener.pacs_comparison import Period
from dicom_listener.part10 import split_file
from dicom_listener.peer import Peer, PeerUnreachable
from dicom_listener.reconcile import Reconciler
from dicom_listener.reconcile_cli import headline
from dicom_listener.sending import find_files, send_files
from tests.builders import ct_series, encoded, localizer, secondary_capture, with_file_meta, write_files
from tests.dicom_listener.conftest import SUCCESS, Running, association, eventually, push, queued, running, settings_for
from tests.dicom_listener.quirky_pacs import running_pacs
from tests.dicom_listener.raw_peer import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_RELEASE_RP, RawPeer
from tests.dicom_listener.raw_scu import store, with_value
from tests.dicom_listener.test_commitment import Reports, asking, request
from tests.dicom_listener.test_durability import FailingDisk
from tests.dicom_listener.test_metrics import get
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage
from triage.settings import ReconcileSettings, load_settings
from triage.study import StudyState

PATIENT_SILENCE = {"quiet_period_s": 60.0, "cap_s": 120.0}  # what is queued sooner was not queued by a timer
SENDERS = [{"ae_title": "CYRILLIC", "character_set": "ISO_IR 144"}, {"ae_title": "HURRIED", "quiet_period_s": 0.3}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("field"), metrics_port=0, senders=SENDERS, **PATIENT_SILENCE) as it:
        yield it


def metric(listener: Running, start: str) -> float:
    lines = get(listener, "/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


# Complaints -----------------------------------------------------------------------------------------------------------


def test_complaint_1_it_is_known_when_a_study_has_come_completely(shared: Running) -> None:
    """1: "Is it possible to know when a study has been completely received?" By its geometry, not by a timer."""
    series = ct_series(slices=32)

    push(shared.port, series)

    study = queued(shared, series[0].StudyInstanceUID)
    assert (study.completed_by, study.partial, study.instance_count) == ("geometry", False, 32)


def test_complaint_2_study_sent_in_pieces_is_one_study(shared: Running) -> None:
    """2: a study in pieces becomes stable several times. It is re-opened, and there is one current revision."""
    *most, late = ct_series(slices=33)
    uid = late.StudyInstanceUID
    push(shared.port, most)
    assert queued(shared, uid).revision == 1

    push(shared.port, [late])

    eventually(lambda: (study := shared.studies.by_uid(uid)) and study.revision == 2)
    assert queued(shared, uid).instance_count == 33
    assert [study.study_instance_uid for study in shared.studies.all()].count(uid) == 1
    assert [event.kind for event in shared.studies.events_of(uid)] == [
        "first_image",
        "complete",
        "reopened",
        "complete",
    ]


def test_complaint_3_associations_spread_out_make_one_study(shared: Running) -> None:
    """3: spread associations make multiple payloads. Images are merged by study, timers are each sender's own."""
    series = ct_series(slices=32)
    few = ct_series(slices=3)

    for start in range(4):
        push(shared.port, series[start::4], calling=f"MODALITY{start % 2}")
    push(shared.port, few, calling="HURRIED")

    study = queued(shared, series[0].StudyInstanceUID)
    assert (study.revision, study.instance_count) == (1, 32)
    assert queued(shared, few[0].StudyInstanceUID).completed_by == "silence"  # of 0.3 s, where others have 60


def test_complaint_4_one_image_that_fails_holds_nothing_up_and_is_not_dropped_in_silence(shared: Running) -> None:
    """4: one failed upload leaves the rest hanging, or is dropped silently."""
    series = ct_series(slices=32)
    [broken] = ct_series(slices=1, study_instance_uid=series[0].StudyInstanceUID)
    del broken.SeriesInstanceUID
    before = shared.studies.quarantined_count()

    statuses = push(shared.port, [*series[:10], broken, *series[10:]])

    assert statuses == [SUCCESS] * 10 + [0xA900] + [SUCCESS] * 22
    assert queued(shared, series[0].StudyInstanceUID).instance_count == 32
    assert shared.studies.quarantined_count() == before + 1
    assert sum(shared.studies.counts().values()) == len(shared.studies.all())


def test_complaint_5_what_the_receiver_refuses_is_sent_once_and_reported(tmp_path: Path) -> None:
    """5: exports loop endlessly, or count as acknowledged though the PACS refused."""
    asked = []
    ae = AE("ARCHIVE")
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.2")
    handlers = [(evt.EVT_C_STORE, lambda event: asked.append(event.request.MessageID) or 0xA700)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    write_files(ct_series(slices=3), tmp_path)
    files, _ = find_files([tmp_path])
    try:
        sent = send_files(files, Peer("127.0.0.1", server.server_address[1], "ARCHIVE"))
    finally:
        server.shutdown()

    assert [item.status for item in sent] == [0xA700] * 3
    assert not any(item.accepted for item in sent)
    assert len(asked) == 3


def test_complaint_6_commitment_is_whole_only_if_each_image_is_kept(shared: Running) -> None:
    """6: export marked COMPLETE although an object failed."""
    [kept] = ct_series(slices=1)
    push(shared.port, [kept])
    never, reports = generate_uid(), Reports()

    with asking(
        shared, request([(kept.SOPClassUID, kept.SOPInstanceUID), (kept.SOPClassUID, never)], generate_uid()), reports
    ):
        [(event_type, told)] = eventually(lambda: reports.received, timeout_s=40.0)

    assert event_type == 2  # complete, failures exist
    assert [item.ReferencedSOPInstanceUID for item in told.FailedSOPSequence] == [never]


def test_complaint_7_nothing_else_that_is_misconfigured_breaks_receiving(tmp_path: Path) -> None:
    """7: a missing exporter configuration breaks receiving. Model, worker, worklist and PACS may all be wrong."""
    config = tmp_path / "triage.toml"
    config.write_text(
        f'[storage]\nfolder = "{tmp_path / "var"}"\n[listener]\nhost = "127.0.0.1"\nport = 0\nmetrics_port = 0\n'
        '[worker]\nendpoint = "nowhere:1"\nmodel_name = "none"\n[server]\nmodels_folder = "/nowhere"\n'
        '[reconcile]\npacs_host = "nowhere"\ntls_ca = "/nowhere/ca.pem"\n[worklist]\ncertificate = "/nowhere/c.pem"\n'
    )
    listener = Listener(load_settings(config))
    listener.start()
    try:
        assert push(listener.port, ct_series(slices=1)) == [SUCCESS]
    finally:
        listener.stop()


def test_complaint_9_large_ct_in_odd_fragments_is_taken(shared: Running) -> None:
    """9: CTs of 400 and more images abort: "DIMSE Failed to receive message"."""
    series = ct_series(slices=420, rows=8, columns=8, spacing_mm=(0.5, 28.0, 28.0))
    with RawPeer(shared.port) as peer:
        assert peer.associate() == A_ASSOCIATE_AC

        statuses = {peer.store(encoded(ds), ds.SOPInstanceUID, pdv_bytes=377 + number % 50)
                    for number, ds in enumerate(series)}  # fmt: skip

        assert statuses == {SUCCESS}
        assert peer.release() == A_RELEASE_RP
    assert queued(shared, series[0].StudyInstanceUID).instance_count == 420


def test_complaint_10_enhanced_multi_frame_is_taken_without_being_parsed(shared: Running) -> None:
    """10: an enhanced image from a scanner aborts the association."""
    [enhanced] = ct_series(slices=1, SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", NumberOfFrames=40,
                           ImagePositionPatient=None, ImageOrientationPatient=None)  # fmt: skip
    with_file_meta(enhanced, enhanced.file_meta.TransferSyntaxUID)
    broken_inside = with_value(encoded(enhanced), 0x0018, 0x0060, b"no DS")  # KVP: not a number

    with association(shared.port, [enhanced]) as established:
        status = store(established, broken_inside, sop_instance_uid=enhanced.SOPInstanceUID,
                       sop_class_uid=enhanced.SOPClassUID)  # fmt: skip

    assert status == SUCCESS
    study = queued(shared, enhanced.StudyInstanceUID)
    assert study.completed_by == "counts"
    [instance] = shared.studies.instances_of(enhanced.StudyInstanceUID)
    assert instance.number_of_frames == 40


def test_complaint_11_odd_character_set_blocks_nobody(shared: Running) -> None:
    """11: one odd character set loops an error and blocks the folder of incoming images."""
    odd, good = ct_series(slices=1), ct_series(slices=32)
    data = with_value(encoded(odd[0]), 0x0008, 0x0005, b"\\ISO 2022 IR nonsense")
    data = with_value(data, 0x0010, 0x0010, b"\x1b$)Xbroken\xff\xfe^\x1b")
    with association(shared.port, odd) as established:
        assert store(established, data, sop_instance_uid=odd[0].SOPInstanceUID) == SUCCESS

    push(shared.port, good)

    assert queued(shared, good[0].StudyInstanceUID).instance_count == 32
    assert shared.studies.by_uid(odd[0].StudyInstanceUID) is not None


@pytest.mark.parametrize(
    ("calling", "declared", "written"),
    [("PACS", "", "Müller"), ("PACS", "ISO_IR 6", "Müller"), ("PACS", "unknown encoding", "Müller"),
     ("CYRILLIC", "ISO_IR 6", "Иванов")],
)  # fmt: skip
def test_complaint_12_wrong_character_set_keeps_bytes_and_reads_the_name(
    shared: Running, calling: str, declared: str, written: str
) -> None:
    """12: LookupError: unknown encoding; CP1251 in "IR 6". Bytes are kept, a sender's own set wins, else UTF-8."""
    [ct] = ct_series(slices=1)
    name = written.encode("iso8859_5" if calling == "CYRILLIC" else "utf-8")
    data = with_value(with_value(encoded(ct), 0x0008, 0x0005, declared.encode()), 0x0010, 0x0010, name)

    with association(shared.port, [ct], calling=calling) as established:
        assert store(established, data, sop_instance_uid=ct.SOPInstanceUID) == SUCCESS

    study = shared.studies.by_uid(ct.StudyInstanceUID)
    assert study is not None
    assert study.header.patient_name == written
    [instance] = shared.studies.instances_of(ct.StudyInstanceUID)
    assert bytes(split_file((shared.folder / instance.path).read_bytes())[1]) == data


def test_complaint_13_associations_that_are_never_closed_do_not_lock_the_port(tmp_path: Path) -> None:
    """13: the SCP stops accepting: "Local Limit Exceeded". Idle peers are reaped, and saturation is told."""
    with running(tmp_path, max_associations=2, network_timeout_s=0.6, metrics_port=0) as listener:
        with RawPeer(listener.port) as one, RawPeer(listener.port) as two, RawPeer(listener.port) as three:
            answers = [peer.associate() for peer in (one, two, three)]
            assert answers == [A_ASSOCIATE_AC, A_ASSOCIATE_AC, A_ASSOCIATE_RJ]
            assert metric(listener, 'ich_listener_rejections_total{code="2/3/2",reason="limit of all"}') == 1
            assert metric(listener, "ich_listener_associations_open") == 2

            eventually(lambda: metric(listener, "ich_listener_associations_open") == 0)

        assert push(listener.port, ct_series(slices=1)) == [SUCCESS]


def test_complaint_14_associations_leave_nothing_behind(shared: Running) -> None:
    """14: memory grows with every association. Neither threads nor descriptors stay; the soak test has the bytes."""

    def left() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    def associate() -> None:
        for _ in range(40):
            with RawPeer(shared.port) as peer:
                assert peer.associate() == A_ASSOCIATE_AC
                assert peer.release() == A_RELEASE_RP

    associate()
    eventually(lambda: metric(shared, "ich_listener_associations_open") == 0)
    time.sleep(0.2)  # the reactors of the last ones end
    threads, descriptors = left()
    associate()

    eventually(lambda: left()[0] <= threads + 2 and left()[1] <= descriptors + 6)


def test_complaint_15_bytes_are_taken_in_large_pdus_and_never_decoded(shared: Running) -> None:
    """15: C-STORE 35 times slower than DCMTK's. Nothing is decoded on the way; `make bench-intake` has the rates."""
    [ct] = ct_series(slices=1)
    undecodable = with_value(encoded(ct), 0x0020, 0x0032, b"a\\b\\c")  # pydicom raises on this position
    with RawPeer(shared.port) as peer:
        assert peer.associate() == A_ASSOCIATE_AC
        at = peer.answer.index(b"\x51\x00\x00\x04")  # maximum length sub-item

        assert int.from_bytes(peer.answer[at + 4 : at + 8], "big") == 131072
        assert peer.store(undecodable, ct.SOPInstanceUID) == SUCCESS

    [instance] = shared.studies.instances_of(ct.StudyInstanceUID)
    assert bytes(split_file((shared.folder / instance.path).read_bytes())[1]) == undecodable


def test_complaint_16_images_that_never_came_are_counted(tmp_path: Path) -> None:
    """16: "Sometimes our device only receives 127 of 180 images"."""
    head = ct_series(slices=9)
    coverage = _compared(tmp_path, in_pacs=head, pushed=head[:6])

    [gap] = coverage.gaps
    assert (gap.present, gap.expected) == (6, 9)


def test_complaint_17_compressed_retired_private_and_reports_are_taken_and_the_rest_is_named(shared: Running) -> None:
    """17: "Abstract Syntax not supported"; compressed not accepted; SR arrives but images do not."""
    offered = {
        "1.2.840.10008.5.1.4.1.1.2": "1.2.840.10008.1.2.4.90",  # CT, JPEG 2000
        "1.2.840.10008.5.1.4.1.1.88.33": "1.2.840.10008.1.2.1",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.6": "1.2.840.10008.1.2",  # Ultrasound Image, retired
        "1.3.12.2.1107.5.9.1": "1.2.840.10008.1.2.1",  # private
        "1.2.840.10008.5.1.1.9": "1.2.840.10008.1.2",  # printing is no storage
    }
    before = metric(shared, "ich_listener_contexts_rejected_total")
    with (
        capture_logs() as lines,
        association(shared.port, contexts=[build_context(*pair) for pair in offered.items()]) as established,
    ):
        taken = {str(context.abstract_syntax) for context in established.accepted_contexts}

    assert taken == set(offered) - {"1.2.840.10008.5.1.1.9"}
    assert metric(shared, "ich_listener_contexts_rejected_total") == before + 1
    [said] = [line["reason"] for line in lines if line["event"] == "contexts_rejected"]
    assert said == "Basic Grayscale Print Management Meta SOP Class"


def test_complaint_18_private_syntaxes_negotiate_and_a_peer_that_takes_nothing_is_named_at_once(
    shared: Running, tmp_path: Path
) -> None:
    """18: private transfer syntaxes crash negotiation; a peer that accepts no context causes a minutes-long loop."""
    contexts = [build_context("1.2.840.10008.5.1.4.1.1.2", f"1.2.840.113619.5.{number}") for number in range(20)]
    with association(shared.port, contexts=contexts) as established:
        assert len(established.accepted_contexts) == 20

    ae = AE("ECHOONLY")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    write_files(ct_series(slices=1), tmp_path)
    files, _ = find_files([tmp_path])
    began = time.monotonic()
    try:
        with pytest.raises(PeerUnreachable, match="accepts none of the services asked for"):
            send_files(files, Peer("127.0.0.1", server.server_address[1], "ECHOONLY"))
    finally:
        server.shutdown()
    assert time.monotonic() - began < 10.0


def test_complaint_21_commitment_is_reported_on_an_association_of_its_own(tmp_path: Path) -> None:
    """21: storage commitment: separate association, roles. We call, as SCP by role selection."""
    reports, roles = Reports(), []
    ae = AE("PACS")
    ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, reports.take),
                (evt.EVT_REQUESTED, lambda event: roles.append(event.assoc.requestor.role_selection))]  # fmt: skip
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    [ct] = ct_series(slices=1)
    sender = {"ae_title": "PACS", "commitment_port": server.server_address[1]}
    try:
        with running(tmp_path, senders=[sender]) as listener:
            push(listener.port, [ct])
            with asking(listener, request([(ct.SOPClassUID, ct.SOPInstanceUID)], generate_uid()), Reports()):
                pass  # and hangs up
            eventually(lambda: reports.received, timeout_s=40.0)
    finally:
        server.shutdown()

    assert [event_type for event_type, _ in reports.received] == [1]
    assert [role.scp_role for each in roles for role in each.values()] == [True]


def test_complaint_25_every_series_of_the_pacs_is_accounted_for_each_day(tmp_path: Path) -> None:
    """25: "every series analysed must equal every series the PACS has that day"."""
    head = ct_series(slices=9)
    scout = localizer(head[0].StudyInstanceUID)
    coverage = _compared(tmp_path, in_pacs=[*head, scout], pushed=[*head, scout])

    assert coverage.whole
    assert headline(coverage).startswith("10 of 10 images, 1 of 1 head CTs")


def _compared(folder: Path, *, in_pacs: list[Dataset], pushed: list[Dataset]) -> Coverage:
    """Compare a listener that was pushed some images with a PACS that has others, and fetch nothing."""
    day = date(2026, 1, 2)  # of the builders' images
    with running(folder / "var") as listener, running_pacs(in_pacs) as pacs:
        push(listener.port, pushed)
        settings = settings_for(listener.folder, port=listener.port)
        asked = ReconcileSettings(pacs_host="127.0.0.1", pacs_port=pacs.port, pacs_ae_title="QUIRKY", retrieve="none")
        ledger = Ledger(settings.storage.ledger_path)
        try:
            return Reconciler(settings.model_copy(update={"reconcile": asked}), ledger).run(Period(day, day))
        finally:
            ledger.close()


# Traps ----------------------------------------------------------------------------------------------------------------


def test_trap_1_lock_that_a_dead_listener_leaves_holds_nobody_up(tmp_path: Path) -> None:
    """Trap 1: lock files without owners. Ours is held by the kernel for a living process; the file says nothing."""
    (tmp_path / "listener.lock").write_text("4711")
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "4711-1.part").write_bytes(b"what it was writing")

    with running(tmp_path) as listener:
        assert push(listener.port, ct_series(slices=1)) == [SUCCESS]
        assert listener.files("incoming") == []


def test_trap_2_row_is_there_before_success(shared: Running) -> None:
    """Trap 2: grouping in memory after the acknowledgement. Others see the row when the sender is answered."""
    series = ct_series(slices=5)
    ledger = Ledger(shared.folder / "ledger.sqlite")  # a connection of its own, as another process has
    try:
        with association(shared.port, series) as established:
            for number, ds in enumerate(series, start=1):
                assert established.send_c_store(ds).Status == SUCCESS
                query = "SELECT COUNT(*) FROM instances WHERE study_instance_uid = ?"
                assert ledger.db.execute(query, [series[0].StudyInstanceUID]).fetchone()[0] == number
    finally:
        ledger.close()


def test_trap_3_no_folder_is_a_queue(shared: Running) -> None:
    """Trap 3: polling a directory tree as a queue. What somebody copies into the store becomes no study by itself."""
    [ct] = ct_series(slices=1)
    for part in ("incoming", "instances"):
        (shared.folder / part / "copied.dcm").write_bytes(bytes(128) + b"DICM" + encoded(ct))

    pushed = ct_series(slices=32)
    push(shared.port, pushed)
    queued(shared, pushed[0].StudyInstanceUID)

    assert shared.studies.by_uid(ct.StudyInstanceUID) is None
    for part in ("incoming", "instances"):
        (shared.folder / part / "copied.dcm").unlink()


def test_trap_4_nothing_is_deleted_for_room_and_no_duplicate_is_kept_in_silence(tmp_path: Path) -> None:
    """Trap 4: emergency cleaning that deletes everything; keep-first duplicates with nothing shown."""
    [ct] = ct_series(slices=1)
    disk = FailingDisk("none", 28, after=0)
    with running(tmp_path, disk=disk, min_free_bytes=10_000_001, metrics_port=0) as listener:
        push(listener.port, [ct])
        [first] = listener.files()
        before = first.read_bytes()
        ct.PatientID = "P0002"
        push(listener.port, [ct])
        disk.step = "low"

        eventually(lambda: push(listener.port, [ct]) == [0xA700])  # the disk is not asked for each image

        assert len(listener.files()) == 2
        assert first.read_bytes() == before
        assert metric(listener, "ich_listener_conflicting_instances") == 1
        assert get(listener, "/health")[0] == 503


def test_trap_5_state_and_event_of_a_study_are_written_together(shared: Running) -> None:
    """Trap 5: alerts outside the transaction. Who sees the study queued sees the event that says why."""
    series = ct_series(slices=32)
    push(shared.port, series)

    study = queued(shared, series[0].StudyInstanceUID)

    events = shared.studies.events_of(study.study_instance_uid)
    assert (events[-1].kind, events[-1].detail, events[-1].at) == ("complete", "geometry", study.queued_at)


def test_trap_6_release_alone_completes_nothing(shared: Running) -> None:
    """Trap 6: completion = association release alone. Half a head was released; senders split studies."""
    lower = ct_series(slices=32)[:16]
    uid = lower[0].StudyInstanceUID
    push(shared.port, lower)
    whole = ct_series(slices=32)

    push(shared.port, whole)
    queued(shared, whole[0].StudyInstanceUID)  # by now the half could have been, too

    half = shared.studies.by_uid(uid)
    assert half is not None
    assert half.state is StudyState.RECEIVING


def test_trap_7_success_is_said_only_of_what_is_kept(shared: Running) -> None:
    """Trap 7: silent drops reported as Success. Pages and reports are kept like any image, and counted."""
    page = secondary_capture(generate_uid())
    report = secondary_capture(page.StudyInstanceUID, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    with_file_meta(report, report.file_meta.TransferSyntaxUID)
    before = metric(shared, 'ich_listener_instances_total{status="0x0000"}')

    assert push(shared.port, [page, report]) == [SUCCESS, SUCCESS]

    assert len(shared.studies.instances_of(page.StudyInstanceUID)) == 2
    assert metric(shared, 'ich_listener_instances_total{status="0x0000"}') == before + 2
    with association(shared.port, contexts=[build_context(Verification)]) as echo:
        assert store(echo, encoded(page), sop_instance_uid=page.SOPInstanceUID) == 0x0122  # not over this context


def test_port_of_a_receiver_that_died_is_said_to_be_closed(tmp_path: Path) -> None:
    """Complaint 8's other half: a sender of ours says that nobody is there, and gives nothing up as sent."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_files(ct_series(slices=1), tmp_path)
    files, _ = find_files([tmp_path])

    with pytest.raises(PeerUnreachable, match="cannot be reached"):
        send_files(files, Peer("127.0.0.1", port, "GONE"))
