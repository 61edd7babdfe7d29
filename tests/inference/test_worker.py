"""The worker's loop against a real ledger and real files."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from inference.worker import Worker
from tests.builders import ct_series, head_hu, write_files
from tests.networks import ThresholdNetwork
from triage.errors import ServingError, ServingUnavailable
from triage.ledger import Ledger
from triage.ledger.intake import Intake, Received
from triage.ledger.studies import Studies
from triage.ledger.work import WorkQueue
from triage.study import Instance, NotAnalysedReason, PatientHeader, StudyState


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def network() -> ThresholdNetwork:
    return ThresholdNetwork()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def worker(ledger: Ledger, network: ThresholdNetwork, clock: Clock, tmp_path: Path) -> Worker:
    return Worker(
        queue=WorkQueue(ledger),
        studies=Studies(ledger),
        folder=tmp_path / "storage",
        network=network,
        owner="tester:1",
        lease_s=60,
        retry_after_s=5,
        clock=clock,
    )


def store_and_queue(intake: Intake, datasets: list[Dataset], folder: Path, *, now: float = 990.0) -> str:
    paths = write_files(datasets, folder / datasets[0].StudyInstanceUID)
    received = [
        Received(
            Instance(
                sop_instance_uid=ds.SOPInstanceUID,
                series_instance_uid=ds.SeriesInstanceUID,
                study_instance_uid=ds.StudyInstanceUID,
                sop_class_uid=ds.SOPClassUID,
                transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
                path=path.relative_to(folder),
                size_bytes=path.stat().st_size,
                blake3=ds.SOPInstanceUID,
                received_at=now,
            ),
            PatientHeader(patient_name=str(ds.PatientName)),
        )
        for ds, path in zip(datasets, paths, strict=True)
    ]
    intake.register(received, now=now)
    uid = str(datasets[0].StudyInstanceUID)
    assert intake.complete(uid, instance_count=len(datasets), completed_by="geometry", now=now + 1)
    return uid


def bleeding_series() -> list[Dataset]:
    hu = head_hu(30)
    hu[12:16, 28:36, 36:44] = 70
    return ct_series(hu=np.asarray(hu))


def test_queued_study_ends_flagged(worker: Worker, intake: Intake, studies: Studies) -> None:
    uid = store_and_queue(intake, bleeding_series(), worker.folder)

    assert worker.run_once()

    study = studies.by_uid(uid)
    assert study is not None
    assert (study.state, study.flag_raised_at) == (StudyState.ANALYSED, 1000.0)
    assert not worker.run_once()


def test_study_that_is_no_head_ct_ends_not_analysed(worker: Worker, intake: Intake, studies: Studies) -> None:
    uid = store_and_queue(
        intake, ct_series(slices=30, BodyPartExamined="CHEST", SeriesDescription="THORAX"), worker.folder
    )

    worker.run_once()

    study = studies.by_uid(uid)
    assert study is not None
    assert (study.state, study.reason) == (StudyState.NOT_ANALYSED, NotAnalysedReason.NOT_HEAD)


def test_study_waits_while_the_model_is_away_and_is_read_when_it_returns(
    worker: Worker, intake: Intake, studies: Studies, network: ThresholdNetwork, clock: Clock
) -> None:
    uid = store_and_queue(intake, bleeding_series(), worker.folder)
    network.error = ServingUnavailable("connection refused", code="UNAVAILABLE")

    worker.run_once()
    waiting = studies.by_uid(uid)
    network.error = None
    clock.now += 5
    worker.run_once()

    assert waiting is not None
    assert (waiting.state, waiting.attempts) == (StudyState.QUEUED, 0)
    assert "UNAVAILABLE" in waiting.detail
    found = studies.by_uid(uid)
    assert found is not None
    assert found.state is StudyState.ANALYSED


def test_study_that_the_endpoint_refuses_is_failed_with_the_cause(
    worker: Worker, intake: Intake, studies: Studies, network: ThresholdNetwork
) -> None:
    uid = store_and_queue(intake, bleeding_series(), worker.folder)
    network.error = ServingError("Expects arg[0] to be float but int16 is provided", code="INVALID_ARGUMENT")

    worker.run_once()

    study = studies.by_uid(uid)
    assert study is not None
    assert study.state is StudyState.FAILED
    assert "INVALID_ARGUMENT" in study.detail


def test_fault_of_ours_fails_one_study_and_the_worker_goes_on(worker: Worker, intake: Intake, studies: Studies) -> None:
    class Broken(ThresholdNetwork):
        def predict(self, hu, *, spec, version):
            if len(self.asked) == 0:
                self.asked.append(hu.shape)
                raise ZeroDivisionError
            return super().predict(hu, spec=spec, version=version)

    object.__setattr__(worker, "network", Broken())
    first = store_and_queue(intake, bleeding_series(), worker.folder, now=980.0)
    second = store_and_queue(intake, bleeding_series(), worker.folder, now=990.0)

    worker.run_once()
    worker.run_once()

    ended = [studies.by_uid(uid) for uid in (first, second)]
    assert [study.state for study in ended if study] == [StudyState.FAILED, StudyState.ANALYSED]
    assert "ZeroDivisionError" in ended[0].detail  # type: ignore[union-attr]


def test_image_that_is_gone_from_the_disk_is_shown_not_hidden(worker: Worker, intake: Intake, studies: Studies) -> None:
    uid = store_and_queue(intake, bleeding_series(), worker.folder)
    (worker.folder / studies.instances_of(uid)[3].path).unlink()

    worker.run_once()

    study = studies.by_uid(uid)
    assert study is not None
    assert (study.state, study.reason) == (StudyState.NOT_ANALYSED, NotAnalysedReason.CANNOT_DECODE)


def test_late_image_in_mid_run_voids_the_result(worker: Worker, intake: Intake, studies: Studies) -> None:
    datasets = bleeding_series()
    uid = store_and_queue(intake, datasets, worker.folder)

    class Interrupted(ThresholdNetwork):
        def predict(self, hu, *, spec, version):
            late = Instance("1.2.3.99", "1.2.3.98", uid, "", "", Path("late.dcm"), 1, "x", 1001.0)
            intake.register([Received(late, PatientHeader())], now=1001.0)
            return super().predict(hu, spec=spec, version=version)

    object.__setattr__(worker, "network", Interrupted())

    worker.run_once()

    study = studies.by_uid(uid)
    assert study is not None
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    assert studies.analyses_of(uid) == []


def test_idle_worker_reports_the_model_and_leaves_in_order(
    worker: Worker, studies: Studies, network: ThresholdNetwork
) -> None:
    stop = threading.Event()
    network.error = ServingUnavailable("connection refused", code="UNAVAILABLE")
    object.__setattr__(worker, "retry_after_s", 0.02)
    thread = threading.Thread(target=worker.run, args=(stop,), kwargs={"poll_interval_s": 0.01})

    thread.start()
    away = _wait_for(lambda: [report.model_available for report in studies.workers()] == [False])
    network.error = None
    back = _wait_for(lambda: [report.model_available for report in studies.workers()] == [True])
    stop.set()
    thread.join(5)

    assert (away, back) == (True, True)
    assert studies.workers() == []


def _wait_for(condition, timeout_s: float = 10.0) -> bool:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return True
        pause.wait(0.01)
    return False
