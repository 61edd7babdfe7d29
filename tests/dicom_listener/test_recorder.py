"""Rows of many associations share commits; each association is told what became of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_listener.header import read_header
from dicom_listener.instances import instance_from
from dicom_listener.recorder import Recorder
from tests.builders import ct_series, encoded
from triage.errors import StoreError
from triage.ledger import SharedLedger
from triage.ledger.intake import Intake, Quarantined, Received, Registered
from triage.ledger.studies import Studies

WAIT_S = 30.0


class HeldIntake(Intake):
    """An intake whose first commit waits until it is let go; notes how many rows share each commit."""

    def __init__(self, ledger: SharedLedger) -> None:
        super().__init__(ledger)
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self.failing = False

    def register(self, received: Sequence[Received], *, now: float) -> list[Registered]:
        self.batches.append(len(received))
        self.begun.set()
        assert self.let_go.wait(WAIT_S)
        if self.failing:
            raise StoreError("The disk is full.")
        return super().register(received, now=now)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SharedLedger]:
    opened = SharedLedger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def received(count: int) -> list[Received]:
    series = ct_series(slices=count, rows=8, columns=8)
    items = []
    for number, ds in enumerate(series):
        header = read_header(encoded(ds), "1.2.840.10008.1.2.1")
        instance = instance_from(
            header,
            path=Path(f"instances/{number}.dcm"),
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            size_bytes=1,
            blake3=f"{number:064x}",
            received_at=1.0,
            calling_ae_title="PACS",
            called_ae_title="ICHTRIAGE",
        )
        items.append(Received(instance, header.patient))
    return items


def record_all_while_one_commits(
    intake: HeldIntake, recorder: Recorder, items: Sequence[Received]
) -> list[Future[Registered]]:
    """Record the first item, all others while its commit is held, then let go."""
    with ThreadPoolExecutor(len(items)) as associations:
        first = associations.submit(recorder.record, items[0])
        assert intake.begun.wait(WAIT_S)
        others = [associations.submit(recorder.record, item) for item in items[1:]]
        while len(recorder._waiting) < len(items):
            threading.Event().wait(0.001)
        intake.let_go.set()
    return [first, *others]


def test_rows_that_come_during_a_commit_share_the_next_one(ledger: SharedLedger) -> None:
    intake, items = HeldIntake(ledger), received(9)

    outcomes = record_all_while_one_commits(intake, Recorder(intake), items)

    assert [outcome.result() for outcome in outcomes] == [Registered.NEW] * 9
    assert intake.batches == [1, 8]
    assert Studies(ledger).instance_count() == 9


def test_each_association_is_told_what_became_of_its_own_row(ledger: SharedLedger) -> None:
    intake, (first, second) = HeldIntake(ledger), received(2)
    other = replace(first, instance=replace(first.instance, blake3="f" * 64, path=Path("instances/other.dcm")))

    outcomes = record_all_while_one_commits(intake, Recorder(intake), [first, first, second, other])

    assert [outcome.result() for outcome in outcomes] == [
        Registered.NEW, Registered.DUPLICATE, Registered.NEW, Registered.CONFLICT]  # fmt: skip


def test_all_that_wait_are_told_when_the_ledger_fails_and_later_ones_are_recorded(ledger: SharedLedger) -> None:
    intake, items = HeldIntake(ledger), received(5)
    recorder = Recorder(intake)
    intake.failing = True

    outcomes = record_all_while_one_commits(intake, recorder, items)
    intake.failing = False

    assert all(isinstance(outcome.exception(), StoreError) for outcome in outcomes)
    assert recorder.record(items[0]) is Registered.NEW


def test_quarantined_data_take_the_same_way(ledger: SharedLedger) -> None:
    recorder = Recorder(Intake(ledger))

    recorder.quarantine(Quarantined(Path("quarantine/1.bin"), 1, 1.0, "PACS", 0xC000, "cut short"))

    assert Studies(ledger).quarantined_count() == 1


def test_stopped_recorder_takes_nothing_more(ledger: SharedLedger) -> None:
    recorder, [item] = Recorder(Intake(ledger)), received(1)

    recorder.stop()

    with pytest.raises(StoreError, match="ending"):
        recorder.record(item)
    assert Studies(ledger).instance_count() == 0
