"""Readiness is tried and not guessed; the ledger's and the PACS's numbers are there for an alarm."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dicom_listener.disk import Bytes, Disk, Place
from tests.builders import ct_series
from tests.dicom_listener.conftest import Running, association, push, running
from tests.dicom_listener.raw_scu import store
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage, Reconciliations


class SwitchedDisk(Disk):
    """A disk that can be made to fail, or to be full."""

    failing = False
    free = 10**12

    def write(self, path: Place, content: Bytes) -> None:
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write(path, content)

    def free_bytes(self, folder: Place) -> int:
        return self.free


@pytest.fixture
def disk() -> SwitchedDisk:
    return SwitchedDisk()


@pytest.fixture
def watched(tmp_path: Path, disk: SwitchedDisk) -> Iterator[Running]:
    with running(tmp_path / "var", disk=disk, metrics_port=0, min_free_bytes=1000) as listener:
        yield listener


def get(watched: Running, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", watched.listener.metrics_port or 0, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def reasons(watched: Running, path: str = "/ready") -> list[str]:
    status, text = get(watched, path)
    told = json.loads(text)["reasons"]
    assert status == (503 if told else 200)
    return told


def gauge(watched: Running, name: str) -> str:
    _, text = get(watched, "/metrics")
    [line] = [line for line in text.splitlines() if line.startswith(f"ich_listener_{name} ")]
    return line.split(" ")[1]


def test_listener_that_can_take_images_is_ready(watched: Running) -> None:
    assert reasons(watched) == []
    assert watched.files("incoming") == []
    assert watched.studies.instance_count() == 0


def test_disk_that_takes_no_data_is_not_ready_and_still_healthy(watched: Running, disk: SwitchedDisk) -> None:
    disk.failing = True

    assert reasons(watched) == ["the disk takes no data: Input/output error"]
    assert reasons(watched, "/health") == []

    disk.failing = False
    assert reasons(watched) == []


def test_low_disk_is_not_ready_with_the_numbers(watched: Running, disk: SwitchedDisk) -> None:
    disk.free = 999

    assert "999 bytes free, fewer than listener.min_free_bytes (1000)" in reasons(watched)


def test_locked_ledger_is_not_ready(watched: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_listener.probes.PATIENCE_S", 0.2)
    writer = sqlite3.connect(watched.folder / "ledger.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert reasons(watched) == ["disk or ledger gave no answer within 0.2 s"]
    finally:
        writer.execute("ROLLBACK")
        writer.close()


def test_quarantined_and_conflicting_data_are_shown(watched: Running) -> None:
    [ct] = ct_series(slices=1)
    push(watched.port, [ct])
    ct.PatientID = "P0002"
    push(watched.port, [ct])
    with association(watched.port, [ct]) as pacs:
        assert store(pacs, b"garbage that is no data set", sop_instance_uid=ct.SOPInstanceUID) == 0xC000

    assert gauge(watched, "quarantined_objects") == "1"
    assert gauge(watched, "conflicting_instances") == "1"


def test_last_comparison_with_the_pacs_is_shown(watched: Running) -> None:
    assert gauge(watched, "reconciled_expected_instances") == "nan"
    ledger = Ledger(watched.folder / "ledger.sqlite")
    Reconciliations(ledger).record(Coverage(1795405000.0, 1795405122.5, "2026-11-23", "2026-11-23", 9, 9, 312, 311, 0))
    ledger.close()
    watched.listener._probes._read_at = float("-inf")  # as if two seconds had gone by

    assert gauge(watched, "reconciled_at_seconds") == "1795405122.5"
    assert gauge(watched, "reconciled_expected_instances") == "312"
    assert gauge(watched, "reconciled_present_instances") == "311"


def test_many_scrapes_open_one_connection_to_the_ledger(watched: Running) -> None:
    get(watched, "/metrics")
    before = len(watched.listener._ledger._opened)

    for _ in range(5):
        get(watched, "/metrics")
        get(watched, "/ready")

    assert len(watched.listener._ledger._opened) == before


def test_nothing_of_a_patient_is_told(watched: Running) -> None:
    series = ct_series(slices=1)
    push(watched.port, series)

    text = "".join(get(watched, path)[1] for path in ("/metrics", "/health", "/ready", "/"))

    assert "Doe" not in text
    assert series[0].StudyInstanceUID not in text
