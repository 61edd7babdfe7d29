"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from triage.ledger import Ledger
from triage.ledger.intake import Intake
from triage.ledger.studies import Studies
from triage.ledger.work import WorkQueue


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger(tmp_path / "storage" / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def intake(ledger: Ledger) -> Intake:
    return Intake(ledger)


@pytest.fixture
def queue(ledger: Ledger) -> WorkQueue:
    return WorkQueue(ledger)


@pytest.fixture
def studies(ledger: Ledger) -> Studies:
    return Studies(ledger)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real head CTs; tests that need it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ICH_TRIAGE_TEST_DATA", beside))
    if not (folder / "ct-ich" / "labels.csv").is_file():
        pytest.skip(f"no real head CTs at {folder}; set ICH_TRIAGE_TEST_DATA to the folder that has ct-ich/")
    return folder
