"""What becomes of images that arrive, over real associations."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import build_context

from dicom_listener.part10 import split_file
from tests.builders import ct_series, encoded, secondary_capture, with_file_meta, write_files
from tests.dicom_listener.conftest import SUCCESS, Running, association, eventually, push, queued, running
from tests.dicom_listener.raw_peer import RawPeer
from tests.dicom_listener.raw_scu import store, with_value
from triage.study import StudyState


def test_pushed_study_is_kept_and_queued(listener: Running) -> None:
    series = ct_series(slices=32)

    statuses = push(listener.port, series)

    assert statuses == [SUCCESS] * 32
    study = queued(listener, series[0].StudyInstanceUID)
    assert (study.instance_count, study.completed_by, study.partial) == (32, "geometry", False)
    assert study.header.patient_name == "Doe^Jane"
    assert study.calling_ae_title == "PACS"
    assert len(listener.files()) == 32
    assert listener.files("incoming") == []


def test_data_set_is_kept_byte_for_byte(listener: Running) -> None:
    [ct] = ct_series(slices=1)

    push(listener.port, [ct])

    [instance] = listener.studies.instances_of(ct.StudyInstanceUID)
    content = (listener.folder / instance.path).read_bytes()
    meta, data = split_file(content)
    assert bytes(data) == encoded(ct)
    assert meta.transfer_syntax_uid == ExplicitVRLittleEndian
    assert instance.blake3 == blake3(encoded(ct)).hexdigest()
    read = dcmread(listener.folder / instance.path)
    assert read.file_meta.MediaStorageSOPInstanceUID == ct.SOPInstanceUID
    assert read.file_meta.SourceApplicationEntityTitle == "PACS"
    assert (read.pixel_array == ct.pixel_array).all()


@pytest.mark.parametrize("pdv_bytes", [1000, 65_530, 131_066])
def test_data_sets_are_kept_byte_for_byte_in_pdus_of_any_size(listener: Running, pdv_bytes: int) -> None:
    noise = np.random.default_rng(1).integers(-1000, 1000, (3, 256, 256)).astype(np.float32)
    series = ct_series(spacing_mm=(5.0, 1.0, 1.0), hu=noise)
    with RawPeer(listener.port) as peer:
        peer.associate()
        for ct in series:
            assert peer.store(encoded(ct), ct.SOPInstanceUID, pdv_bytes=pdv_bytes) == SUCCESS
        peer.release()

    instances = listener.studies.instances_of(series[0].StudyInstanceUID)
    kept = [split_file((listener.folder / instance.path).read_bytes())[1] for instance in instances]
    assert [bytes(data) for data in kept] == [encoded(ct) for ct in series]


def test_ledger_has_the_geometry(listener: Running) -> None:
    [ct] = ct_series(slices=1)

    push(listener.port, [ct])

    [instance] = listener.studies.instances_of(ct.StudyInstanceUID)
    assert instance.image_position_mm == tuple(ct.ImagePositionPatient)
    assert instance.image_orientation == (1, 0, 0, 0, 1, 0)
    assert (instance.rows, instance.columns, instance.modality, instance.series_number) == (64, 64, "CT", 2)
    assert instance.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian],
    ids=lambda syntax: syntax.keyword,
)
def test_each_way_of_writing_elements_is_read(listener: Running, syntax: str) -> None:
    [ct] = ct_series(slices=1)
    ct = with_file_meta(_written_in(ct, syntax), syntax)

    assert push(listener.port, [ct]) == [SUCCESS]

    [instance] = listener.studies.instances_of(ct.StudyInstanceUID)
    assert instance.transfer_syntax_uid == syntax
    assert instance.rows == 64
    assert dcmread(listener.folder / instance.path).PatientName == "Doe^Jane"


def test_resent_instance_is_kept_once(listener: Running) -> None:
    [ct] = ct_series(slices=1)

    statuses = push(listener.port, [ct, ct])

    assert statuses == [SUCCESS, SUCCESS]
    assert listener.studies.instance_count() == 1
    assert len(listener.files()) == 1


def test_same_uid_with_other_content_is_kept_apart(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    push(listener.port, [ct])
    [first] = listener.files()
    before = first.read_bytes()
    ct.PatientID = "P0002"

    assert push(listener.port, [ct]) == [SUCCESS]

    assert first.read_bytes() == before
    assert len(listener.files()) == 2
    assert listener.studies.conflict_count(ct.StudyInstanceUID) == 1
    assert listener.studies.instance_count() == 1


def test_same_uid_in_another_study_is_kept_apart(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    push(listener.port, [ct])
    ct.StudyInstanceUID = generate_uid()

    assert push(listener.port, [ct]) == [SUCCESS]

    assert len(listener.files()) == 2
    assert listener.studies.conflict_count() == 1


def test_late_image_reopens_its_study(listener: Running) -> None:
    *most, late = ct_series(slices=33)
    uid = late.StudyInstanceUID
    push(listener.port, most)
    assert queued(listener, uid).revision == 1

    push(listener.port, [late])

    eventually(lambda: (study := listener.studies.by_uid(uid)) and study.revision == 2)
    assert queued(listener, uid).instance_count == 33


def test_one_study_over_several_associations_is_queued_once(listener: Running) -> None:
    series = ct_series(slices=32)

    for start in range(4):
        push(listener.port, series[start::4])  # interleaved: each part has gaps

    study = queued(listener, series[0].StudyInstanceUID)
    assert (study.revision, study.instance_count, study.completed_by) == (1, 32, "geometry")


def test_study_of_a_long_association_is_queued_before_the_release(tmp_path: Path) -> None:
    first, second = ct_series(slices=32), ct_series(slices=2)
    with (
        running(tmp_path / "long", quiet_period_s=60.0, cap_s=120.0) as listener,
        association(listener.port, [*first, *second]) as established,
    ):
        for ds in [*first, *second]:
            established.send_c_store(ds)

        study = queued(listener, first[0].StudyInstanceUID)

        assert established.is_established
        assert (study.instance_count, study.completed_by) == (32, "geometry")
        growing = listener.studies.by_uid(second[0].StudyInstanceUID)
        assert growing is not None
        assert growing.state is StudyState.RECEIVING


def test_study_with_a_missing_slice_goes_on_as_partial(listener: Running) -> None:
    series = ct_series(slices=32)
    del series[10]

    push(listener.port, series)

    study = queued(listener, series[0].StudyInstanceUID)
    assert (study.completed_by, study.partial) == ("cap", True)


def test_secondary_captures_wait_for_silence_only(listener: Running) -> None:
    page = secondary_capture(generate_uid())

    push(listener.port, [page])

    study = queued(listener, page.StudyInstanceUID)
    assert (study.completed_by, study.partial) == ("silence", False)


@pytest.mark.parametrize(
    "uid",
    ["../../../etc/passwd", "/etc/passwd", "1.2.3\x00.4", "1.2.3\n4", "..", "1..2", "1" * 65, "1." * 32 + "1", "abc"],
)
def test_what_is_no_uid_is_refused_and_stays_inside(listener: Running, tmp_path: Path, uid: str) -> None:
    [ct] = ct_series(slices=1)
    data = with_value(encoded(ct), 0x0020, 0x000D, uid.encode())
    before = {path for path in tmp_path.rglob("*") if (tmp_path / "var") not in path.parents}

    status = _store_bytes(listener, data, sop_instance_uid=ct.SOPInstanceUID)

    assert status == 0xA900
    assert listener.studies.instance_count() == 0
    assert listener.studies.quarantined_count() == 1
    assert listener.files() == []
    assert listener.files("incoming") == []
    assert {path for path in tmp_path.rglob("*") if (tmp_path / "var") not in path.parents} == before


def test_missing_study_uid_is_refused_and_quarantined(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    del ct.StudyInstanceUID

    assert push(listener.port, [ct]) == [0xA900]

    [kept] = listener.files("quarantine")
    assert kept.read_bytes() == encoded(ct)
    assert listener.studies.quarantined_count() == 1


def test_empty_study_uid_is_refused_and_quarantined(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    data = with_value(encoded(ct), 0x0020, 0x000D, b"")

    assert _store_bytes(listener, data, sop_instance_uid=ct.SOPInstanceUID) == 0xA900

    [kept] = listener.files("quarantine")
    assert kept.read_bytes() == data


def test_retired_and_private_classes_are_kept(listener: Running) -> None:
    for sop_class in ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.5", "1.2.276.0.7230010.3.1.0.1"):
        [ct] = ct_series(slices=1, SOPClassUID=sop_class)  # US and NM as they were until 1993, and DCMTK's private one
        assert push(listener.port, [with_file_meta(ct, ExplicitVRLittleEndian)]) == [SUCCESS]

    assert listener.studies.instance_count() == 3


def test_command_that_names_another_instance_is_refused(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    data = encoded(ct)

    assert _store_bytes(listener, data, sop_instance_uid=generate_uid()) == 0xA900
    assert listener.studies.instance_count() == 0


@pytest.mark.parametrize("cut", ["one byte", "header", "pixels"])
def test_truncated_data_set_is_quarantined_and_the_association_goes_on(listener: Running, cut: str) -> None:
    [ct] = ct_series(slices=1)
    whole = encoded(ct)
    in_study_uid = whole.index(b"\x20\x00\x0d\x00UI") + 20
    part = {"one byte": whole[:1], "header": whole[:in_study_uid], "pixels": whole[:-100]}[cut]

    with association(listener.port, [ct]) as established:
        statuses = [
            store(established, part, sop_instance_uid=ct.SOPInstanceUID),
            store(established, whole, sop_instance_uid=ct.SOPInstanceUID),
        ]

    assert statuses == [0xC000, SUCCESS]
    assert listener.studies.quarantined_count() == 1
    assert listener.studies.instance_count() == 1


def test_garbage_as_data_set_is_quarantined(listener: Running) -> None:
    assert _store_bytes(listener, bytes(range(256)) * 10, sop_instance_uid="1.2.3") == 0xC000

    [kept] = listener.files("quarantine")
    assert kept.read_bytes() == bytes(range(256)) * 10


@pytest.mark.parametrize(
    "charset", ["ISO_IR 192", "ISO_IR 100", "ISO_IR 6", "UTF-8", "nonsense", "\\ISO 2022 IR 87", ""]
)
def test_no_character_set_fails_a_receive(listener: Running, charset: str) -> None:
    [ct] = ct_series(slices=1)
    data = with_value(encoded(ct), 0x0010, 0x0010, "Mül^ler".encode())  # UTF-8, whatever is declared
    data = with_value(data, 0x0008, 0x0005, charset.encode())

    assert _store_bytes(listener, data, sop_instance_uid=ct.SOPInstanceUID) == SUCCESS

    study = listener.studies.by_uid(ct.StudyInstanceUID)
    assert study is not None
    assert study.header.patient_name.startswith("M")
    assert study.header.patient_name.endswith("l^ler")


def test_private_sop_class_is_kept(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    ct.SOPClassUID = "1.3.12.2.1107.5.9.1"  # Siemens' private CSA storage
    with_file_meta(ct, ExplicitVRLittleEndian)

    assert push(listener.port, [ct]) == [SUCCESS]

    assert listener.studies.instance_count() == 1


def test_unknown_transfer_syntax_is_kept_when_offered_alone(listener: Running) -> None:
    [ct] = ct_series(slices=1)
    private = "1.2.840.113619.5.999"

    with association(listener.port, contexts=[build_context(ct.SOPClassUID, private)]) as established:
        status = store(established, encoded(ct), sop_instance_uid=ct.SOPInstanceUID)

    assert status == SUCCESS
    [instance] = listener.studies.instances_of(ct.StudyInstanceUID)
    assert instance.transfer_syntax_uid == private


def test_wrong_called_ae_title_is_rejected(listener: Running) -> None:
    from pynetdicom import AE

    rejected = AE().associate(
        "127.0.0.1", listener.port, contexts=[build_context("1.2.840.10008.1.1")], ae_title="OTHER"
    )

    assert rejected.is_rejected
    result = rejected.acceptor.primitive
    assert (result.result, result.result_source, result.diagnostic) == (1, 1, 7)


def test_verification_is_answered(listener: Running) -> None:
    with association(listener.port, contexts=[build_context("1.2.840.10008.1.1")]) as established:
        assert established.send_c_echo().Status == SUCCESS


@pytest.mark.dcmtk
@pytest.mark.parametrize("program", ["storescu", "dcmsend"])
def test_dcmtk_pushes_a_study(listener: Running, tmp_path: Path, program: str) -> None:
    series = ct_series(slices=32)
    write_files(series, tmp_path / "scan")
    command = [program, "-aec", "ICHTRIAGE", "127.0.0.1", str(listener.port), "+sd", str(tmp_path / "scan")]

    subprocess.run(command, check=True, timeout=60)

    study = queued(listener, series[0].StudyInstanceUID)
    assert (study.instance_count, study.completed_by) == (32, "geometry")
    kept = {instance.blake3 for instance in listener.studies.instances_of(study.study_instance_uid)}
    assert kept == {blake3(encoded(ds)).hexdigest() for ds in series}


def test_growing_study_is_in_state_receiving(listener: Running) -> None:
    series = ct_series(slices=2)
    with association(listener.port, series) as established:
        established.send_c_store(series[0])
        study = listener.studies.by_uid(series[0].StudyInstanceUID)
        assert study is not None
        assert study.state is StudyState.RECEIVING


def _written_in(ds: Dataset, syntax: str) -> Dataset:
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = ds.pixel_array.astype(">i2").tobytes()
    return ds


def _store_bytes(listener: Running, data: bytes, *, sop_instance_uid: str) -> int:
    [ct] = ct_series(slices=1)
    with association(listener.port, [ct]) as established:
        return store(established, data, sop_instance_uid=sop_instance_uid)
