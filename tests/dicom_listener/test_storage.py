"""What lies on disk beside the ledger: files that are gone or damaged, and the bounds of the quarantine."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from dicom_listener import quarantine as quarantine_module
from dicom_listener.quarantine import QuarantineRoom
from dicom_listener.storage_cli import storage
from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import SUCCESS, Running, association, eventually, push, running
from tests.dicom_listener.raw_scu import store
from tests.dicom_listener.test_metrics import get

GARBAGE = bytes(range(256)) * 4


def command(folder: Path, *arguments: str) -> Result:
    config = folder.parent / f"{folder.name}.toml"
    config.write_text(f'[storage]\nfolder = "{folder}"\n')
    return CliRunner().invoke(storage, [*arguments, "--config", str(config)], env={"COLUMNS": "200"})


def push_bytes(running: Running, *data: bytes) -> list[int]:
    [ct] = ct_series(slices=1)
    with association(running.port, [ct]) as established:
        return [store(established, each, sop_instance_uid=ct.SOPInstanceUID) for each in data]


def test_file_that_is_gone_is_reported_and_comes_back_with_its_study(tmp_path: Path) -> None:
    series = ct_series(slices=3)
    folder = tmp_path / "var"
    with running(folder) as listener:
        push(listener.port, series)
        gone, cut, _ = listener.files()
        study = listener.studies.by_uid(series[0].StudyInstanceUID)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-10])

    with capture_logs() as lines, running(folder, metrics_port=0) as listener:
        eventually(lambda: "ich_listener_missing_files 1\n" in get(listener, "/metrics")[1])
        status, health = get(listener, "/health")
        quick, whole = command(folder, "verify", "--quick"), command(folder, "verify")
        assert push(listener.port, series) == [SUCCESS] * 3
        mended = command(folder, "verify")

    assert [(line["count"], line["instances"]) for line in lines if line["event"] == "files_missing"] == [(1, 3)]
    assert (status, json.loads(health)["notes"]) == (200, ["1 images have no file: ich-triage storage verify"])
    assert (quick.exit_code, quick.stdout.splitlines()[-1]) == (1, "2 of 3 files are there.")
    assert (whole.exit_code, whole.stdout.splitlines()[-1]) == (1, "1 of 3 files are there and whole.")
    assert f"│ {study.study_id} " in whole.stdout
    assert "10 bytes" not in whole.stdout
    assert f"damaged: {len(encoded(series[0])) - 10} bytes instead of {len(encoded(series[0]))}" in whole.stdout
    assert str(series[0].StudyInstanceUID) not in whole.stdout
    assert (mended.exit_code, mended.stdout) == (0, "3 of 3 files are there and whole.\n")


def test_changed_content_is_found(tmp_path: Path) -> None:
    with running(tmp_path / "var") as listener:
        push(listener.port, ct_series(slices=1))
        [file] = listener.files()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    verified = command(tmp_path / "var", "verify")

    assert verified.exit_code == 1
    assert "damaged: other content" in verified.stdout


def test_conflicts_are_verified_too(tmp_path: Path) -> None:
    [ct] = ct_series(slices=1)
    with running(tmp_path / "var") as listener:
        push(listener.port, [ct])
        ct.PatientID = "P0002"
        push(listener.port, [ct])

    assert command(tmp_path / "var", "verify").stdout == "2 of 2 files are there and whole.\n"


def test_folder_without_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    for words in (["verify"], ["quarantine"]):
        done = command(tmp_path / "none", *words)
        assert done.exit_code == 1
        assert "Is storage.folder right?" in done.stderr
    assert not (tmp_path / "none").exists()


def test_same_content_is_quarantined_once(tmp_path: Path) -> None:
    with running(tmp_path / "var") as listener:
        assert push_bytes(listener, *[GARBAGE] * 5) == [0xC000] * 5

        assert len(listener.files("quarantine")) == 1
        assert listener.studies.quarantined_count() == 1


def test_full_quarantine_refuses_instead_of_filling_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine_module, "LOOK_EVERY_S", 0.0)
    bounds = {"quarantine_max_bytes": 3000, "quarantine_max_objects": 100}
    [ct] = ct_series(slices=1)
    with capture_logs() as lines, running(tmp_path / "var", metrics_port=0, **bounds) as listener:
        statuses = push_bytes(listener, GARBAGE, GARBAGE[1:], GARBAGE[2:], GARBAGE)
        accepted = push(listener.port, [ct])
        text = get(listener, "/metrics")[1]
        removed = command(tmp_path / "var", "quarantine", "--remove", "all")
        again = push_bytes(listener, GARBAGE[2:])

    assert statuses == [0xC000, 0xC000, 0xA700, 0xC000]  # the last is there already
    assert accepted == [SUCCESS]
    assert "ich_listener_quarantine_refused_total 1\n" in text
    assert f"ich_listener_quarantined_bytes {2 * len(GARBAGE) - 1}\n" in text
    assert [line["event"] for line in lines].count("quarantine_full") == 1
    assert removed.stdout == "2 of 2 removed.\n"
    assert again == [0xC000]


def test_number_of_objects_is_bounded_too(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    folder.mkdir()
    now = [0.0]
    room = QuarantineRoom(tmp_path, max_bytes=10**9, max_objects=2, clock=lambda: now[0])

    assert [room.take(1, f"{number:064x}") for number in range(3)] == [True, True, False]
    assert room.is_full()
    now[0] += 10.0  # by now it has looked: nothing was written
    assert not room.is_full()


def test_quarantine_is_shown_with_reason_and_without_patient(tmp_path: Path) -> None:
    [ct] = ct_series(slices=1)
    del ct.StudyInstanceUID
    folder = tmp_path / "var"
    with running(folder) as listener:
        push(listener.port, [ct])
        push_bytes(listener, GARBAGE)
        shown = command(folder, "quarantine")
        one = command(folder, "quarantine", "--remove", "1")
        left = command(folder, "quarantine")
        wrong = command(folder, "quarantine", "--remove", "7")

    assert "Study Instance UID is missing or is no UID" in shown.stdout
    assert "0xA900" in shown.stdout
    assert "Doe" not in shown.stdout
    assert shown.stdout.splitlines()[-1] == f"2 in quarantine, {len(encoded(ct)) + len(GARBAGE)} bytes."
    assert one.stdout == "1 of 2 removed.\n"
    assert left.stdout.splitlines()[-1] == f"1 in quarantine, {len(GARBAGE)} bytes."
    assert len(list((folder / "quarantine").iterdir())) == 1
    assert wrong.exit_code == 2


def test_ledger_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    sqlite3.connect(tmp_path / "var" / "ledger.sqlite").close()

    done = command(tmp_path / "var", "verify")

    assert done.exit_code == 1
    assert "The ledger cannot be read" in done.stderr
