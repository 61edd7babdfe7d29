"""Orthanc as the PACS: Debian's package, on loopback, with a folder and ports of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_listener.peer import Peer, PeerUnreachable
from dicom_listener.sending import find_files, send_files, verify
from dicom_listener.tls import ClientTls
from tests.builders import write_files

AE_TITLE = "ORTHANC"


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    port: int
    folder: Path
    tls: ClientTls | None = None

    @property
    def peer(self) -> Peer:
        return Peer("127.0.0.1", self.port, AE_TITLE, "ICHTRIAGE", self.tls)

    def keep(self, datasets: Sequence[Dataset]) -> None:
        """Store images in it over an association."""
        folder = self.folder / f"pushed-{time.monotonic_ns()}"
        write_files(datasets, folder)
        files, _ = find_files([folder])
        sent = send_files(files, self.peer)
        assert all(item.accepted for item in sent)
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_orthanc(
    folder: Path, *, listener_port: int = 0, tls: ClientTls | None = None, **options: Any
) -> Iterator[Orthanc]:
    """Run Orthanc; it knows our listener, if a port is given, as ICHTRIAGE."""
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian's package orthanc)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpServerEnabled": False,
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"triage": ["ICHTRIAGE", "127.0.0.1", listener_port]} if listener_port else {},
        "SynchronousCMove": True,
        "SaveJobs": False,
        "DicomAssociationCloseDelay": 0,
    } | options
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        orthanc = Orthanc(port, folder, tls)
        _wait_for(orthanc, process)
        yield orthanc
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(orthanc: Orthanc, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert verify(orthanc.peer, timeout_s=2) == 0
        except PeerUnreachable:
            assert process.poll() is None, (orthanc.folder / "orthanc.log").read_text()
            assert time.monotonic() < deadline, "Orthanc does not answer"
            time.sleep(0.05)
        else:
            return
