"""The whole system on loopback, as a site runs it, with the model that ships."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_stack import MODELS_FOLDER, LocalStack
from triage.ledger import Ledger
from triage.ledger.studies import Studies
from triage.settings import load_settings
from triage.study import FINAL_STATES, Study

SHORT_WAITS = {"quiet_period_s": 4.0, "cap_s": 8.0}  # instead of 20 and 60 s: broken studies have no other evidence


class Site:
    """One running stack with its ledger beside it."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.dicom_port = stack.wait_ready("listen")["dicom_port"]
        self.ledger = Ledger(load_settings(stack.config).storage.ledger_path)
        self.studies = Studies(self.ledger)

    def push(self, *paths: Path) -> int:
        """Push files or folders with our own C-STORE user; its exit code."""
        command = [sys.executable, "-m", "ich_triage", "send", *map(str, paths), "--port", str(self.dicom_port)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    def storescu(self, folder: Path) -> int:
        """Push a folder with DCMTK's storescu; its exit code."""
        command = ["storescu", "-aec", "ICHTRIAGE", "+sd", "+r", "-nh", "127.0.0.1", str(self.dicom_port), str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    def wait_for(self, condition: Callable[[], object], *, timeout_s: float = 90.0) -> None:
        """Wait until `condition` holds; the logs' ends are in the failure."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.05)
        logs = "\n".join(f"{name}: {self.stack.log_tail(name)}" for name in ("listen", "work", "serve"))
        pytest.fail(f"not within {timeout_s:.0f} s; {self.studies.counts()}\n{logs}")

    def wait_ended(self, study_instance_uid: str, *, timeout_s: float = 90.0) -> Study:
        """Wait until one study has ended; gives it."""
        self.wait_for(lambda: self._ended(study_instance_uid), timeout_s=timeout_s)
        study = self.studies.by_uid(study_instance_uid)
        assert study is not None
        return study

    def _ended(self, study_instance_uid: str) -> bool:
        study = self.studies.by_uid(study_instance_uid)
        return study is not None and study.state in FINAL_STATES


def needs_model() -> None:
    """Skip where no model ships (a checkout without models/)."""
    if not (MODELS_FOLDER / "ich_unet").is_dir():
        pytest.skip("models/ich_unet is absent; train and export one first")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All four processes, shared by the tests that leave them running."""
    needs_model()
    with LocalStack(tmp_path_factory.mktemp("site"), toml={"listener": SHORT_WAITS}) as stack:
        stack.wait_ready("serve")
        running = Site(stack)
        yield running
        running.ledger.close()


@pytest.fixture(scope="session")
def real_dicom(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DICOM as scanners wrote it, unpacked."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(real_data / "dicom.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "dicom"


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantom studies of 512 x 512, the second one bleeding, with their truth."""
    folder = tmp_path_factory.mktemp("phantoms")
    command = [sys.executable, "-m", "ich_triage", "phantoms", str(folder), "--count", "2", "--bleeds", "1"]
    subprocess.run([*command, "--seed", "7", "--smallest-ml", "15"], check=True, capture_output=True)
    return folder
