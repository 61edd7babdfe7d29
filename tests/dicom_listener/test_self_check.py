"""`ich-triage listen --check` finds what would keep a listener from working, and says what to do."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dicom_listener.checks import Check, Grade
from dicom_listener.cli import listen
from dicom_listener.disk import Bytes, Disk, Place
from dicom_listener.self_check import has_fault, self_check
from dicom_listener.user_identity import PasscodeHash
from tests.builders import ct_series
from tests.dicom_listener.conftest import push, running, settings_for
from triage.ledger import Ledger


def checks_of(folder: Path, *, disk: Disk | None = None, **listener: Any) -> dict[str, Check]:
    checks = self_check(settings_for(folder, **listener), disk=disk)
    return {check.what: check for check in checks}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "own.pem"
    key = path.with_suffix(".key")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "10",
         "-keyout", str(key), "-out", str(path)], capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    key.chmod(0o600)
    return path


def test_fresh_host_is_fine(tmp_path: Path) -> None:
    checks = checks_of(tmp_path / "var", metrics_port=0)

    assert not has_fault(list(checks.values()))
    assert checks["AE title"].found == "ICHTRIAGE"
    assert checks["ledger"].found == "none yet; the first start makes it"
    assert checks["durable write"].grade is Grade.GOOD
    assert [path for path in (tmp_path / "var").rglob("*") if path.is_file()] == []


def test_ledger_that_is_there_is_opened_and_not_changed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm401_reconciliations'")
    ledger.db.conn.commit()
    ledger.close()
    before = (tmp_path / "ledger.sqlite").read_bytes()

    check = checks_of(tmp_path)["ledger"]

    assert check.grade is Grade.GOOD
    assert "the next start applies 1 more" in check.found
    assert (tmp_path / "ledger.sqlite").read_bytes() == before


def test_ledger_of_a_newer_version_is_a_fault(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.db.execute("UPDATE _sqlite_migrations SET name = 'm999_later' WHERE name = 'm401_reconciliations'")
    ledger.db.conn.commit()
    ledger.close()

    check = checks_of(tmp_path)["ledger"]

    assert (check.grade, check.mend) == (Grade.FAULT, "update this host: an older version must not write it")
    assert "m999_later" in check.found


def test_file_that_is_no_ledger_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database, however long one looks at it" * 50)

    assert checks_of(tmp_path)["ledger"].grade is Grade.FAULT


def test_ledger_that_stays_locked_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triage.ledger.inspection.LOCK_WAIT_S", 0.1)
    Ledger(tmp_path / "ledger.sqlite").close()
    writer = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    check = checks_of(tmp_path)["ledger"]

    writer.close()
    assert check.grade is Grade.FAULT
    assert "locked" in check.found


class OddDisk(Disk):
    """A disk that is slow, nearly full, or takes no data."""

    def __init__(self, *, seconds: float = 0, free: int = 10**12, error: int = 0) -> None:
        self.seconds, self.free, self.error = seconds, free, error

    def write(self, path: Place, content: Bytes) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        time.sleep(self.seconds)
        super().write(path, content)

    def free_bytes(self, folder: Place) -> int:
        return self.free


def test_full_disk_is_a_fault(tmp_path: Path) -> None:
    check = checks_of(tmp_path, disk=OddDisk(free=10**9), min_free_bytes=2 * 10**9)["free disk"]

    assert (check.grade, check.found) == (Grade.FAULT, "1.0 GB; images are refused below 2.0 GB")


def test_disk_that_takes_no_data_is_a_fault(tmp_path: Path) -> None:
    check = checks_of(tmp_path, disk=OddDisk(error=errno.EROFS))["storage"]

    assert check.grade is Grade.FAULT
    assert "Read-only file system" in check.found
    assert "storage.folder" in check.mend


def test_slow_disk_is_doubtful(tmp_path: Path) -> None:
    assert checks_of(tmp_path, disk=OddDisk(seconds=0.06))["durable write"].grade is Grade.DOUBTFUL


def test_folder_below_a_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")

    assert checks_of(tmp_path / "taken" / "var")["storage"].grade is Grade.FAULT


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "var"
    (folder / "incoming").mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder / "incoming")], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder / "incoming")], check=True)


def test_incoming_on_another_file_system_is_a_fault(other_file_system: Path) -> None:
    check = checks_of(other_file_system)["storage"]

    assert check.grade is Grade.FAULT
    assert "Invalid cross-device link" in check.found


def test_images_without_file_are_a_fault_and_quarantine_is_doubtful(tmp_path: Path) -> None:
    with running(tmp_path) as listener:
        push(listener.port, ct_series(slices=2))
        listener.files()[0].unlink()
    (tmp_path / "quarantine" / "x.bin").write_bytes(bytes(10))

    checks = checks_of(tmp_path)

    assert (checks["images on disk"].grade, checks["quarantine"].grade) == (Grade.FAULT, Grade.DOUBTFUL)
    assert checks["images on disk"].found == "1 of the ledger's have no file"
    assert "ich-triage storage quarantine" in checks["quarantine"].mend


@pytest.mark.parametrize(
    ("settings", "grade", "found"),
    [
        ({"only_known_senders": True}, Grade.FAULT, "none is known"),
        ({"senders": [{"ae_title": "A", "passcode_hash": "x", "username": "u"}]}, Grade.FAULT, "passcode_hash"),
        ({"senders": [{"ae_title": "A", "passcode_hash": str(PasscodeHash.of("x")), "username": "u"}]},
         Grade.DOUBTFUL, "in the clear"),
        ({"senders": [{"ae_title": "A"}]}, Grade.GOOD, "1 known"),
    ],
)  # fmt: skip
def test_senders_are_judged(tmp_path: Path, settings: dict[str, Any], grade: Grade, found: str) -> None:
    check = checks_of(tmp_path, **settings)["senders"]

    assert check.grade is grade
    assert found in check.found


@pytest.mark.parametrize("setting", ["port", "metrics_port"])
def test_port_in_use_is_a_fault(tmp_path: Path, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        checks = checks_of(tmp_path, **{setting: port})

    [check] = [item for what, item in checks.items() if what.endswith(str(port))]
    assert check.grade is Grade.FAULT
    assert f"listener.{setting}" in check.mend
    assert f":{port}" in check.mend


def test_address_of_another_host_is_a_fault(tmp_path: Path) -> None:
    check = checks_of(tmp_path, host="192.0.2.1")["DICOM port 0"]

    assert (check.grade, check.mend) == (
        Grade.FAULT, "listener.host: an address of this host, or 0.0.0.0 for all of them"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("title", "grade"),
    [("TRIAGE", Grade.GOOD), ("triage", Grade.DOUBTFUL), ("TRI\\AGE", Grade.FAULT), ("   ", Grade.FAULT),
     ("TRIÄGE", Grade.FAULT)],
)  # fmt: skip
def test_ae_titles_are_judged(tmp_path: Path, title: str, grade: Grade) -> None:
    assert checks_of(tmp_path, ae_title=title)["AE title"].grade is grade


def test_certificate_that_expires_soon_is_doubtful(tmp_path: Path, certificate: Path) -> None:
    checks = checks_of(tmp_path, tls_certificate=certificate, tls_key=certificate.with_suffix(".key"))

    check = checks["listener.tls_certificate, own.pem"]
    assert (check.grade, check.mend) == (Grade.DOUBTFUL, "a new certificate")
    assert "expires in 10 days" in check.found or "expires in 9 days" in check.found


def test_key_that_others_may_read_is_doubtful(tmp_path: Path, certificate: Path) -> None:
    key = certificate.with_suffix(".key")
    key.chmod(0o644)

    check = checks_of(tmp_path, tls_certificate=certificate, tls_key=key)["TLS key"]

    assert (check.grade, check.mend) == (Grade.DOUBTFUL, f"chmod 600 {key}")


def test_missing_certificate_is_a_fault(tmp_path: Path) -> None:
    assert checks_of(tmp_path, tls_certificate=tmp_path / "none.pem")["TLS"].grade is Grade.FAULT


def test_too_few_descriptors_are_doubtful(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        check = checks_of(tmp_path, max_associations=64)["open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert check.grade is Grade.DOUBTFUL
    assert "LimitNOFILE=" in check.mend


def test_waits_that_contradict_each_other_are_doubtful(tmp_path: Path) -> None:
    check = checks_of(tmp_path, cap_s=5.0, quiet_period_s=20.0)["completion"]

    assert (check.grade, check.mend) == (Grade.DOUBTFUL, "listener.cap_s above listener.quiet_period_s")


def test_running_listener_is_found_and_left_alone(tmp_path: Path) -> None:
    with running(tmp_path) as listener:
        checks = checks_of(tmp_path, port=listener.port)

    assert checks["listener"].found == "one runs on this storage folder"
    assert checks[f"DICOM port {listener.port}"].found == "the running listener answers C-ECHO"
    assert not has_fault(list(checks.values()))


def test_command_exits_by_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "triage.toml"
    listener = '[listener]\nhost = "127.0.0.1"\nport = 0\nmin_free_bytes = '
    config.write_text(f'[storage]\nfolder = "{tmp_path / "var"}"\n{listener}0\n')
    command = [sys.executable, "-m", "ich_triage", "listen", "--check", "--config", str(config)]

    good = subprocess.run(command, capture_output=True, text=True, timeout=200)
    config.write_text(config.read_text().replace("min_free_bytes = 0", f"min_free_bytes = {10**15}"))
    bad = subprocess.run(command, capture_output=True, text=True, timeout=200)

    assert (good.returncode, bad.returncode) == (0, 1), good.stdout + bad.stdout
    assert "durable write" in good.stdout
    assert "make room, or lower listener.min_free_bytes" in bad.stdout
    assert bad.stdout.splitlines()[-1] == "1 fault: a listener would not start, or would lose images."


def test_wrong_settings_are_a_usage_error(tmp_path: Path) -> None:
    config = tmp_path / "triage.toml"
    config.write_text("[listener]\nprot = 104\n")

    assert CliRunner().invoke(listen, ["--check", "--config", str(config)]).exit_code == 2
