"""What the PACS has and was never received is found, fetched and reported; Orthanc is the PACS."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_listener.pacs_comparison import Period, default_period
from dicom_listener.part10 import split_file
from dicom_listener.reconcile import Reconciler
from dicom_listener.reconcile_cli import headline, reconcile
from tests.builders import ct_series, encoded, secondary_capture
from tests.dicom_listener.conftest import SUCCESS, Running, push, queued, running, settings_for
from tests.dicom_listener.orthanc import Orthanc, free_port, running_orthanc
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage, GapState, Reconciliations
from triage.settings import ReconcileSettings, Settings

TODAY = date.today()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, int]]:
    """One Orthanc for all tests of this module; each has studies, a listener and a ledger of its own."""
    port = free_port()
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), listener_port=port) as orthanc:
        yield orthanc, port


class Day:
    """A day of studies of its own, so that tests do not see each other's."""

    numbers = iter(range(1, 1000))

    def __init__(self) -> None:
        self.date = TODAY - timedelta(days=400 + next(self.numbers))
        self.period = Period(self.date, self.date)

    def study(self, slices: int = 6, **header: Any) -> list[Dataset]:
        return ct_series(slices=slices, StudyDate=f"{self.date:%Y%m%d}", **header)


@pytest.fixture
def day() -> Day:
    return Day()


@pytest.fixture
def received(site: tuple[Orthanc, int], tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "var", port=site[1], ae_title="ICHTRIAGE") as listener:
        yield listener


def settings_of(folder: Path, orthanc_port: int, listener_port: int, **changes: Any) -> Settings:
    values = {
        "pacs_host": "127.0.0.1", "pacs_port": orthanc_port, "pacs_ae_title": "ORTHANC", "confirm_after_s": 0.0,
        "fetch_wait_s": 0.2, "timeout_s": 10.0,
    }  # fmt: skip
    settings = settings_for(folder, port=listener_port)
    return settings.model_copy(update={"reconcile": ReconcileSettings(**(values | changes))})


def compare(site: tuple[Orthanc, int], received: Running, day: Day, **changes: Any) -> Coverage:
    settings = settings_of(received.folder, site[0].port, site[1], **changes)
    ledger = Ledger(settings.storage.ledger_path)
    try:
        return Reconciler(settings, ledger).run(day.period)
    finally:
        ledger.close()


def counts(coverage: Coverage) -> tuple[int, int, int, int]:
    return (coverage.instances_present, coverage.instances_expected, coverage.studies_complete,
            coverage.studies_expected)  # fmt: skip


def test_everything_there_is_reported_as_whole(site, received, day) -> None:
    study = day.study(6)
    site[0].keep(study)
    push(received.port, study)

    coverage = compare(site, received, day)

    assert counts(coverage) == (6, 6, 1, 1)
    assert coverage.whole
    assert coverage.instances_fetched == 0


@pytest.mark.parametrize("retrieve", ["move", "get"])
def test_study_that_never_came_is_fetched_and_goes_on(site, received, day, retrieve) -> None:
    study = day.study(32)
    site[0].keep(study)

    coverage = compare(site, received, day, retrieve=retrieve)

    assert counts(coverage) == (32, 32, 1, 1)
    assert (coverage.instances_fetched, coverage.gaps, coverage.error) == (32, (), "")
    found = queued(received, study[0].StudyInstanceUID)
    assert (found.instance_count, found.completed_by) == (32, "geometry")
    assert found.calling_ae_title == "ORTHANC"


@pytest.mark.parametrize("retrieve", ["move", "get"])
def test_only_the_missing_images_are_fetched(site, received, day, retrieve) -> None:
    """FIELD: "sometimes our device only receives 127 of 180 images"."""
    study = day.study(12)
    site[0].keep(study)
    push(received.port, study[:7])
    before = {instance.sop_instance_uid for instance in received.studies.instances_of(study[0].StudyInstanceUID)}

    coverage = compare(site, received, day, retrieve=retrieve)

    assert counts(coverage) == (12, 12, 1, 1)
    assert coverage.instances_fetched == 5
    after = received.studies.instances_of(study[0].StudyInstanceUID)
    assert {instance.sop_instance_uid for instance in after} - before == {ds.SOPInstanceUID for ds in study[7:]}


def test_image_fetched_by_get_is_kept_as_the_pacs_has_it(site, received, day) -> None:
    [ct] = day.study(1)
    site[0].keep([ct])

    compare(site, received, day, retrieve="get")

    [instance] = received.studies.instances_of(ct.StudyInstanceUID)
    _, data = split_file((received.folder / instance.path).read_bytes())
    assert bytes(data) == encoded(ct)


def test_missing_series_is_fetched_whole(site, received, day) -> None:
    thick = day.study(4)
    uid = thick[0].StudyInstanceUID
    thin = day.study(9, study_instance_uid=uid, SeriesNumber=3)
    site[0].keep([*thick, *thin])
    push(received.port, thick)

    coverage = compare(site, received, day)

    assert counts(coverage) == (13, 13, 1, 1)
    assert coverage.instances_fetched == 9


def test_results_and_reports_in_the_pacs_are_not_missed(site, received, day) -> None:
    """Fetching our own result would re-open its study, and analyse it again, without end."""
    study = day.study(5)
    uid = study[0].StudyInstanceUID
    result = secondary_capture(uid, Modality="SR", StudyDate=study[0].StudyDate)
    site[0].keep([*study, result])
    push(received.port, study)

    coverage = compare(site, received, day)

    assert counts(coverage) == (5, 5, 1, 1)
    assert coverage.whole


def test_only_head_cts_are_asked_for(site, received, day) -> None:
    chest = day.study(3, StudyDescription="CT CHEST", SeriesDescription="LUNG 1.0", BodyPartExamined="CHEST")
    unnamed = day.study(2, StudyDescription="", SeriesDescription="", BodyPartExamined="")
    mr_head = day.study(3, Modality="MR")
    site[0].keep([*chest, *unnamed, *mr_head])

    coverage = compare(site, received, day)

    assert counts(coverage) == (2, 2, 1, 1)
    assert received.studies.by_uid(chest[0].StudyInstanceUID) is None


def test_study_that_was_pushed_counts_whatever_it_is_called(site, received, day) -> None:
    study = day.study(3, StudyDescription="TRAUMA", SeriesDescription="5.0", BodyPartExamined="")
    site[0].keep(study)
    push(received.port, study[:1])

    assert counts(compare(site, received, day)) == (3, 3, 1, 1)


def test_other_days_are_not_asked_for(site, received, day) -> None:
    site[0].keep(Day().study(3))

    assert counts(compare(site, received, day)) == (0, 0, 0, 0)


def test_conflicting_image_is_there(site, received, day) -> None:
    """An image kept apart because its UID is known under another study was received: fetching it changes nothing."""
    study = day.study(3)
    site[0].keep(study)
    other = deepcopy(study[0])
    other.StudyInstanceUID = generate_uid()
    push(received.port, [other, *study])

    coverage = compare(site, received, day)

    assert counts(coverage) == (3, 3, 1, 1)
    assert coverage.instances_fetched == 0


def test_growing_study_is_left_alone(site, received, day) -> None:
    study = day.study(8)
    site[0].keep(study)
    push(received.port, study[:3])
    settings = settings_of(received.folder, site[0].port, site[1], confirm_after_s=30.0)
    ledger = Ledger(settings.storage.ledger_path)

    coverage = Reconciler(settings, ledger, sleep=lambda _: None).run(day.period)

    ledger.close()
    [gap] = coverage.gaps
    assert (gap.state, gap.present, gap.expected, gap.attempts) == (GapState.ARRIVING, 3, 8, 0)
    assert received.studies.instance_count() == 3


def test_images_that_come_by_themselves_meanwhile_are_not_fetched(site, received, day) -> None:
    study = day.study(8)
    site[0].keep(study)
    settings = settings_of(received.folder, site[0].port, site[1])
    ledger = Ledger(settings.storage.ledger_path)

    coverage = Reconciler(settings, ledger, sleep=lambda _: push(received.port, study)).run(day.period)

    ledger.close()
    assert counts(coverage) == (8, 8, 1, 1)
    assert coverage.instances_fetched == 0


def test_pacs_that_does_not_know_us_is_told_apart_and_given_up(site, tmp_path, day) -> None:
    study = day.study(4)
    site[0].keep(study)
    with running(tmp_path / "var", ae_title="SOMEONE") as received:
        settings = settings_of(received.folder, site[0].port, received.port, max_attempts=2)
        listener = settings.listener.model_copy(update={"ae_title": "SOMEONE", "port": received.port})
        settings = settings.model_copy(update={"listener": listener})
        ledger = Ledger(settings.storage.ledger_path)
        coverages = [Reconciler(settings, ledger).run(day.period) for _ in range(4)]
        ledger.close()

    states = [(gap.state, gap.attempts) for coverage in coverages for gap in coverage.gaps]
    assert states == [(GapState.FETCH_FAILED, 1), (GapState.FETCH_FAILED, 2), (GapState.GIVEN_UP, 2),
                      (GapState.GIVEN_UP, 2)]  # fmt: skip
    assert counts(coverages[0]) == (0, 4, 0, 1)
    assert coverages[0].gaps[0].detail
    assert not coverages[0].whole


def test_own_listener_that_is_down_uses_up_no_attempt(site, tmp_path, day) -> None:
    site[0].keep(day.study(2))
    settings = settings_of(tmp_path, site[0].port, free_port())
    ledger = Ledger(settings.storage.ledger_path)

    coverage = Reconciler(settings, ledger).run(day.period)

    ledger.close()
    [gap] = coverage.gaps
    assert (gap.state, gap.attempts) == (GapState.FETCH_FAILED, 0)
    assert "ich-triage listen" in gap.detail


# pynetdicom drops a socket that could not connect without closing it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pacs_that_is_away_is_reported_and_recorded(tmp_path, day) -> None:
    settings = settings_of(tmp_path, free_port(), free_port())
    ledger = Ledger(settings.storage.ledger_path)

    coverage = Reconciler(settings, ledger).run(day.period)

    assert "cannot be reached" in coverage.error
    assert not coverage.whole
    assert Reconciliations(ledger).latest() == coverage
    ledger.close()


def test_pacs_that_cuts_its_answers_off_is_asked_in_parts(tmp_path) -> None:
    day = Day()
    studies = [day.study(1, StudyTime=f"{hour:02d}3000") for hour in (0, 1, 2, 8, 9, 11, 17, 23)]
    port = free_port()
    with (
        running_orthanc(tmp_path / "orthanc", listener_port=port, LimitFindResults=3) as orthanc,
        running(tmp_path / "var", port=port) as received,
    ):
        orthanc.keep([study[0] for study in studies])

        coverage = compare((orthanc, port), received, day)

    assert counts(coverage) == (8, 8, 8, 8)
    assert coverage.error == ""


def test_receiving_goes_on_while_images_are_fetched(site, received, day) -> None:
    site[0].keep([ds for _ in range(3) for ds in day.study(8)])
    pushed = Day().study(32)
    statuses: list[int] = []
    pushing = threading.Thread(target=lambda: statuses.extend(push(received.port, pushed, calling="SCANNER")))
    pushing.start()

    coverage = compare(site, received, day)

    pushing.join()
    assert statuses == [SUCCESS] * 32
    assert counts(coverage) == (24, 24, 3, 3)


def test_command_says_how_much_is_there_and_exits_by_it(site, tmp_path) -> None:
    today = [ct_series(slices=slices, StudyDate=f"{TODAY:%Y%m%d}") for slices in (7, 5)]
    site[0].keep([ds for study in today for ds in study])
    with running(tmp_path / "var", port=site[1]) as received:
        push(received.port, today[0])
        config = tmp_path / "triage.toml"
        config.write_text(
            f'[storage]\nfolder = "{received.folder}"\n[listener]\nhost = "127.0.0.1"\nport = {site[1]}\n'
            f'[reconcile]\npacs_port = {site[0].port}\npacs_ae_title = "ORTHANC"\nretrieve = "none"\n'
            "after_midnight_minutes = 0\n"
        )
        short = _run(config)
        config.write_text(config.read_text().replace('"none"', '"move"\nconfirm_after_s = 0'))
        whole = _run(config)

    assert (short.returncode, whole.returncode) == (1, 0), short.stderr + whole.stderr
    assert short.stdout.startswith("7 of 12 images, 1 of 2 head CTs today\n")
    assert "missing" in short.stdout
    assert whole.stdout == "12 of 12 images, 2 of 2 head CTs today; 5 fetched now\n"
    assert "Doe" not in short.stdout + short.stderr + whole.stderr


def _run(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ich_triage", "reconcile", "--config", str(config), "--once"]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_wrong_option_is_a_usage_error() -> None:
    result = CliRunner().invoke(reconcile, ["--days", "0"])

    assert result.exit_code == 2


def test_hourly_comparison_goes_back_to_what_is_open() -> None:
    settings = ReconcileSettings()
    morning = datetime(2026, 11, 23, 8, 0)
    night = datetime(2026, 11, 23, 0, 30)
    last = Coverage(0, 0, "2026-11-20", "2026-11-21", 0, 0, 0, 0, 0)

    assert default_period(settings, morning).first_day == date(2026, 11, 23)
    assert default_period(settings, night).first_day == date(2026, 11, 22)
    assert default_period(settings, morning, last).first_day == date(2026, 11, 21)
    assert default_period(settings, morning, replace(last, error="away")).first_day == date(2026, 11, 20)
    old = replace(last, first_day="2026-01-01", error="away")
    assert default_period(settings, morning, old).first_day == date(2026, 11, 16)


def test_headline_names_the_days() -> None:
    started_at = datetime(2026, 11, 23, 12).timestamp()
    today = Coverage(started_at, started_at, "2026-11-23", "2026-11-23", 9, 9, 312, 312, 0)

    assert headline(today) == "312 of 312 images, 9 of 9 head CTs today"
    assert headline(replace(today, first_day="2026-11-20")).endswith("from 2026-11-20 to 2026-11-23")


def test_old_comparisons_are_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triage.ledger.reconciliation.KEPT_RUNS", 2)
    reconciliations = Reconciliations(ledger)

    for run in range(5):
        reconciliations.record(Coverage(run, run, "2026-11-23", "2026-11-23", 0, 0, 0, 0, 0))

    assert ledger.db.execute("SELECT started_at FROM reconciliations").fetchall() == [(3.0,), (4.0,)]
