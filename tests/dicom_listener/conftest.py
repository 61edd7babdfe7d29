"""A listener on a free loopback port, and senders that push to it over real associations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from dicom_listener.disk import Disk
from dicom_listener.listener import Listener
from dicom_listener.peer import reactor_held
from triage.ledger import Ledger
from triage.ledger.intake import Intake
from triage.ledger.studies import Studies
from triage.settings import ListenerSettings, Settings, StorageSettings
from triage.study import Study, StudyState

SUCCESS = 0x0000
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Running:
    """A running listener and its ledger."""

    listener: Listener
    folder: Path
    studies: Studies
    intake: Intake

    @property
    def port(self) -> int:
        return self.listener.port

    def files(self, part: str = "instances") -> list[Path]:
        return sorted(path for path in (self.folder / part).rglob("*") if path.is_file())


def settings_for(folder: Path, **listener: Any) -> Settings:
    quick = {
        "host": "127.0.0.1",
        "port": 0,
        "settle_s": 0.2,
        "moved_on_s": 0.5,
        "quiet_period_s": 1.0,
        "cap_s": 2.0,
        "min_free_bytes": 0,
    }
    return Settings(storage=StorageSettings(folder=folder), listener=ListenerSettings(**(quick | listener)))


@contextmanager
def running(folder: Path, *, disk: Disk | None = None, **listener_settings: Any) -> Iterator[Running]:
    settings = settings_for(folder, **listener_settings)
    listener = Listener(settings, disk=disk)
    listener.start()
    ledger = Ledger(settings.storage.ledger_path)
    try:
        yield Running(listener, folder, Studies(ledger), Intake(ledger))
    finally:
        ledger.close()
        listener.stop()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "var") as it:
        yield it


@contextmanager
def association(
    port: int, datasets: Sequence[Dataset] = (), *, contexts: Sequence[Any] = (), calling: str = "PACS"
) -> Iterator[Association]:
    """An association that proposes what `datasets` need, or `contexts`."""
    ae = AE(ae_title=calling)
    wanted = dict.fromkeys((ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in datasets)
    proposed = list(contexts) or [build_context(*pair) for pair in wanted]
    established = ae.associate("127.0.0.1", port, contexts=proposed, ae_title="ICHTRIAGE")
    assert established.is_established
    connection = established.dul.socket.socket
    try:
        with reactor_held(established):
            yield established
    finally:
        if established.is_established:
            established.release()
        connection.close()  # pynetdicom leaves it open when the peer has gone


def push(port: int, datasets: Sequence[Dataset], *, calling: str = "PACS") -> list[int]:
    """Send over one association and give the statuses."""
    with association(port, datasets, calling=calling) as established:
        return [established.send_c_store(ds).Status for ds in datasets]


def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait for a condition and give its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s")


def queued(running: Running, study_instance_uid: str, timeout_s: float = 10.0) -> Study:
    """Wait until a study is queued."""

    def study() -> Study | None:
        found = running.studies.by_uid(study_instance_uid)
        return found if found is not None and found.state is StudyState.QUEUED else None

    return eventually(study, timeout_s)


class ListenProcess:
    """`ich-triage listen` as a process of its own, which a test may kill."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, folder: Path, **listener: Any) -> None:
        settings = settings_for(folder, **listener)
        self.environment = os.environ | {
            "ICH_TRIAGE_STORAGE__FOLDER": str(folder),
            **{
                f"ICH_TRIAGE_LISTENER__{name.upper()}": str(value)
                for name, value in settings.listener
                if isinstance(value, (str, int, float))
            },
        }
        self.port = 0

    def start(self, *, stderr: IO[bytes] | None = None) -> ListenProcess:
        command = [sys.executable, "-c", "from dicom_listener.cli import listen; listen()"]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        self.started.append(self.process)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the listener ended with {self.process.wait()}"
        self.port = json.loads(line)["dicom_port"]
        return self

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(autouse=True)
def _no_listener_left() -> Iterator[None]:
    """End what a failed test leaves running."""
    yield
    while ListenProcess.started:
        process = ListenProcess.started.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def ledger_of(folder: Path) -> Iterator[Studies]:
    ledger = Ledger(folder / "ledger.sqlite")
    try:
        yield Studies(ledger)
    finally:
        ledger.close()
