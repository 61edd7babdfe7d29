"""STOW-RS: images by HTTP into the same durable path as by C-STORE, with a real listener behind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import BytesIO

import pytest
from flask import Flask
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import generate_uid
from werkzeug.test import TestResponse

from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import Running, queued, running
from tests.worklist_ui.ledger_fill import Department
from tests.worklist_ui.programs import Program, program
from triage.ledger import Ledger
from worklist_ui.scopes import Scope

DICOM = "application/dicom"
RETRIEVE_URL, REFERENCED, FAILED, REASON, INSTANCE = "00081190", "00081199", "00081198", "00081197", "00081155"


@pytest.fixture
def listener(department: Department, app: Flask) -> Iterator[Running]:
    with running(department.folder) as running_one:
        yield running_one


@pytest.fixture
def sender(app: Flask, ledger: Ledger) -> Program:
    return program(app, ledger, Scope.IMAGES_WRITE)


def file_of(ds: Dataset) -> bytes:
    content = BytesIO()
    dcmwrite(content, ds, enforce_file_format=True)
    return content.getvalue()


def body_of(files: Sequence[bytes], kinds: Sequence[str] = (), end: bytes = b"--cut--\r\n") -> bytes:
    kinds = kinds or [DICOM] * len(files)
    parts = (b"--cut\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + content + b"\r\n"
             for kind, content in zip(kinds, files, strict=True))  # fmt: skip
    return b"".join(parts) + end


def stow(sender: Program, body: bytes, *, study: str = "", kind: str = "") -> TestResponse:
    content_type = kind or f'multipart/related; type="{DICOM}"; boundary=cut'
    headers = {"Authorization": f"Bearer {sender.secret}", "Accept": "application/dicom+json"}
    path = f"/dicomweb/studies/{study}" if study else "/dicomweb/studies"
    return sender.client.post(path, data=body, content_type=content_type, headers=headers)


def test_instances_are_kept_byte_for_byte_and_their_study_is_queued(listener: Running, sender: Program) -> None:
    series = ct_series(slices=30)

    answer = stow(sender, body_of([file_of(ds) for ds in series]))

    report = json.loads(answer.data)
    assert answer.status_code == 200
    assert [item[INSTANCE]["Value"][0] for item in report[REFERENCED]["Value"]] == [ds.SOPInstanceUID for ds in series]
    assert report[RETRIEVE_URL]["Value"][0].endswith(f"/dicomweb/studies/{series[0].StudyInstanceUID}")
    study = queued(listener, series[0].StudyInstanceUID)
    assert (study.instance_count, study.calling_ae_title, study.completed_by) == (30, "STOW-RS", "geometry")
    kept = {instance.sop_instance_uid: instance for instance in listener.studies.instances_of(study.study_instance_uid)}
    for ds in series:
        assert (listener.folder / kept[ds.SOPInstanceUID].path).read_bytes().endswith(encoded(ds))


def test_large_instance_is_streamed(listener: Running, sender: Program) -> None:
    [ct] = ct_series(slices=1, rows=1200, columns=1200)  # 2.9 MB: more than is looked at for the header

    assert stow(sender, body_of([file_of(ct)])).status_code == 200

    [kept] = listener.studies.instances_of(ct.StudyInstanceUID)
    assert kept.size_bytes == len(encoded(ct))


def test_what_cannot_be_kept_is_named_with_its_reason(listener: Running, sender: Program) -> None:
    good, cut = ct_series(slices=2)
    files = [file_of(good), file_of(cut)[:-10], b"no DICOM", b"{}"]

    answer = stow(sender, body_of(files, [DICOM, DICOM, DICOM, "application/json"]))

    report = json.loads(answer.data)
    assert answer.status_code == 202
    assert len(report[REFERENCED]["Value"]) == 1
    assert [item[REASON]["Value"][0] for item in report[FAILED]["Value"]] == [0xC000, 0xC000, 0x0110]
    assert len(list((listener.folder / "quarantine").iterdir())) == 2


def test_images_of_another_study_than_the_address_names_are_refused(listener: Running, sender: Program) -> None:
    [mine], [other] = ct_series(slices=1), ct_series(slices=1)

    answer = stow(sender, body_of([file_of(mine), file_of(other)]), study=mine.StudyInstanceUID)
    all_others = stow(sender, body_of([file_of(other)]), study=mine.StudyInstanceUID)

    assert (answer.status_code, all_others.status_code) == (202, 409)
    assert listener.studies.by_uid(other.StudyInstanceUID) is None
    assert listener.studies.by_uid(mine.StudyInstanceUID).instance_count == 1


def test_body_that_breaks_off_keeps_what_was_whole_and_says_so(listener: Running, sender: Program) -> None:
    first, second = ct_series(slices=2)
    whole = body_of([file_of(first), file_of(second)], end=b"")

    answer = stow(sender, whole[:-1000])

    assert answer.status_code == 400
    assert "ends before its last boundary" in json.loads(answer.data)["detail"]
    assert listener.studies.instance_count() == 1
    assert listener.files("incoming") == []


@pytest.mark.parametrize(
    "kind", ["application/json", 'multipart/related; type="application/dicom+json"; boundary=cut', "multipart/related"]
)
def test_other_bodies_are_unsupported(listener: Running, sender: Program, kind: str) -> None:
    assert stow(sender, b"{}", kind=kind).status_code == 415


def test_without_a_listener_nothing_is_taken_and_the_sender_is_told_when_to_come_again(sender: Program) -> None:
    [ct] = ct_series(slices=1)

    answer = stow(sender, body_of([file_of(ct)]))

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "ich-triage listen" in json.loads(answer.data)["detail"]


def test_only_a_token_made_for_it_may_bring_images(listener: Running, app: Flask, ledger: Ledger) -> None:
    reader = program(app, ledger, Scope.IMAGES_READ, username="viewer")

    assert stow(reader, body_of([b""])).status_code == 403
    assert listener.studies.instance_count() == 0


def test_same_instance_again_is_kept_once_and_other_content_apart(listener: Running, sender: Program) -> None:
    [ct] = ct_series(slices=1)
    again = body_of([file_of(ct), file_of(ct)])
    ct.PatientComments = "other"

    assert stow(sender, again).status_code == 200
    assert stow(sender, body_of([file_of(ct)])).status_code == 200

    assert listener.studies.instance_count() == 1
    assert len(listener.files()) == 2


def test_study_in_the_address_that_is_nobodys_is_refused(listener: Running, sender: Program) -> None:
    [ct] = ct_series(slices=1)

    assert stow(sender, body_of([file_of(ct)]), study=generate_uid()).status_code == 409
