"""The ledger: what the listener and the worker write, and that nothing is lost or said twice."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from triage.errors import LeaseLost, StoreError
from triage.finding import Component, Finding, OperatingPoint, SeriesChoice
from triage.ledger import Ledger
from triage.ledger.intake import Intake, Received, Registered
from triage.ledger.studies import Studies
from triage.ledger.work import WorkQueue
from triage.study import FINAL_STATES, Instance, NotAnalysedReason, PatientHeader, ReadingState, StudyState

OPERATING_POINT = OperatingPoint(
    study_probability=0.5, voxel_probability=0.5, smallest_component_ml=0.1, rule="for tests"
)
CHOICES = (
    SeriesChoice("1.2.3.4", 2, "HEAD 5.0", 32, True, None, "32 slices, 5.00 mm apart"),
    SeriesChoice("1.2.3.5", 1, "SCOUT", 1, False, NotAnalysedReason.LOCALIZER, "1 images marked LOCALIZER"),
)


def instance(number: int = 1, *, study: str = "1.2.3", blake3: str = "", at: float = 100.0) -> Instance:
    return Instance(
        sop_instance_uid=f"{study}.9.{number}",
        series_instance_uid=f"{study}.4",
        study_instance_uid=study,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=Path(f"instances/{study}/{number}.dcm"),
        size_bytes=1000,
        blake3=blake3 or f"{number:064x}",
        received_at=at,
        calling_ae_title="PACS",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        image_position_mm=(0.0, 0.0, 5.0 * number),
        image_orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        rows=512,
        columns=512,
    )


def received(number: int = 1, **values: object) -> Received:
    return Received(instance(number, **values), PatientHeader(patient_name="Doe^Jane", patient_id="P1"))  # type: ignore[arg-type]


def finding(*, flagged: bool = True) -> Finding:
    return Finding(
        flagged=flagged,
        probability=0.9 if flagged else 0.1,
        volume_ml=12.5 if flagged else 0.0,
        components=(Component(12.5, 0.97, (14, 17)),) if flagged else (),
        key_slabs=(15, 16, 14),
        model_name="ich_unet",
        model_version=1,
        operating_point=OPERATING_POINT,
        series_instance_uid="1.2.3.4",
        series_choices=CHOICES,
        slab_count=32,
        seconds={"select": 0.1, "predict": 0.9},
    )


def queue_study(intake: Intake, *, study: str = "1.2.3", now: float = 110.0, images: int = 2) -> None:
    intake.register([received(number, study=study) for number in range(1, images + 1)], now=now)
    assert intake.complete(study, instance_count=images, completed_by="geometry", now=now)


def test_registered_instance_comes_back_as_it_was(intake: Intake, studies: Studies) -> None:
    registered = intake.register([received(1)], now=100.0)

    assert registered == [Registered.NEW]
    assert studies.instances_of("1.2.3") == [instance(1)]


def test_first_instance_opens_its_study_with_the_patient_of_its_header(intake: Intake, studies: Studies) -> None:
    intake.register([received(1, at=100.0), received(2, at=101.5)], now=102.0)

    [study] = studies.all()
    assert study.state is StudyState.RECEIVING
    assert study.header.patient_name == "Doe^Jane"
    assert (study.instance_count, study.first_image_at, study.last_image_at) == (2, 100.0, 101.5)


def test_same_bytes_again_are_no_new_row(intake: Intake, studies: Studies) -> None:
    assert intake.register([received(1), received(1)], now=100.0) == [Registered.NEW, Registered.DUPLICATE]
    assert studies.instance_count() == 1


def test_other_bytes_under_a_known_uid_are_kept_apart(intake: Intake, studies: Studies) -> None:
    intake.register([received(1)], now=100.0)

    again = intake.register([received(1, blake3="f" * 64), received(1, blake3="f" * 64)], now=101.0)

    assert again == [Registered.CONFLICT, Registered.CONFLICT]
    assert studies.instances_of("1.2.3") == [instance(1)]
    assert studies.conflict_count("1.2.3") == 1


def test_known_uid_under_another_study_is_a_conflict(intake: Intake, studies: Studies) -> None:
    first = received(1)
    moved = replace(first, instance=replace(first.instance, study_instance_uid="9.9"))
    intake.register([first], now=100.0)

    assert intake.register([moved], now=101.0) == [Registered.CONFLICT]
    assert [study.study_instance_uid for study in studies.all()] == ["1.2.3"]


def test_error_in_mid_commit_keeps_nothing(intake: Intake, studies: Studies) -> None:
    broken = replace(received(2), instance=replace(instance(2), path=None))  # type: ignore[arg-type]

    with pytest.raises(AttributeError):
        intake.register([received(1), broken], now=100.0)

    assert studies.instance_count() == 0
    assert studies.all() == []


def test_study_that_grew_meanwhile_is_not_completed(intake: Intake, studies: Studies) -> None:
    intake.register([received(1), received(2)], now=100.0)

    assert not intake.complete("1.2.3", instance_count=1, completed_by="silence", now=120.0)
    assert studies.all()[0].state is StudyState.RECEIVING


def test_claimed_study_is_recorded_with_its_finding(intake: Intake, queue: WorkQueue, studies: Studies) -> None:
    queue_study(intake)
    claim = queue.claim_next(owner="a", lease_s=60, now=111.0)
    assert claim is not None

    queue.record(claim, finding(), now=115.0)

    [study] = studies.all()
    analysis = studies.current_analysis("1.2.3")
    assert (study.state, study.found_at, study.flag_raised_at) == (StudyState.ANALYSED, 115.0, 115.0)
    assert analysis is not None
    assert analysis.finding == finding()
    assert [event.kind for event in studies.events_of("1.2.3")] == ["first_image", "complete", "started", "flagged"]


def test_refusal_is_recorded_with_what_was_measured(intake: Intake, queue: WorkQueue, studies: Studies) -> None:
    queue_study(intake)
    claim = queue.claim_next(owner="a", lease_s=60, now=111.0)
    assert claim is not None

    queue.refuse(claim, NotAnalysedReason.UNEVEN_GAPS, "4.00 to 7.00 mm", now=112.0, series_choices=CHOICES)

    [study] = studies.all()
    analysis = studies.current_analysis("1.2.3")
    assert (study.state, study.reason) == (StudyState.NOT_ANALYSED, NotAnalysedReason.UNEVEN_GAPS)
    assert study.detail == "4.00 to 7.00 mm"
    assert analysis is not None
    assert analysis.series_choices == CHOICES


def test_a_study_is_claimed_once(intake: Intake, queue: WorkQueue) -> None:
    queue_study(intake)

    assert queue.claim_next(owner="a", lease_s=60, now=111.0) is not None
    assert queue.claim_next(owner="b", lease_s=60, now=112.0) is None


def test_stat_goes_first_then_the_longest_queued(intake: Intake, queue: WorkQueue) -> None:
    queue_study(intake, study="1.1", now=100.0)
    queue_study(intake, study="1.2", now=101.0)
    intake.register([replace(received(1, study="1.3"), priority="stat")], now=102.0)
    intake.complete("1.3", instance_count=1, completed_by="geometry", now=102.0)

    claims = [queue.claim_next(owner="a", lease_s=60, now=110.0) for _ in range(3)]

    assert [claim.study.study_instance_uid for claim in claims if claim] == ["1.3", "1.1", "1.2"]


def test_lapsed_lease_is_taken_over_and_the_first_owner_is_refused(
    intake: Intake, queue: WorkQueue, studies: Studies
) -> None:
    queue_study(intake)
    first = queue.claim_next(owner="a", lease_s=10, now=111.0)
    second = queue.claim_next(owner="b", lease_s=10, now=121.5)
    assert first is not None
    assert second is not None

    with pytest.raises(LeaseLost, match="fence"):
        queue.record(first, finding(), now=122.0)
    queue.record(second, finding(flagged=False), now=123.0)

    assert len(studies.analyses_of("1.2.3")) == 1
    assert second.study.attempts == 2


def test_study_whose_worker_ended_three_times_is_failed(intake: Intake, queue: WorkQueue, studies: Studies) -> None:
    queue_study(intake)
    for turn in range(3):
        assert queue.claim_next(owner="a", lease_s=10, now=200.0 + 20 * turn) is not None

    assert queue.claim_next(owner="a", lease_s=10, now=300.0) is None

    [study] = studies.all()
    assert study.state is StudyState.FAILED
    assert "3 times" in study.detail


def test_study_given_back_waits_and_does_not_count_the_attempt(
    intake: Intake, queue: WorkQueue, studies: Studies
) -> None:
    queue_study(intake)
    claim = queue.claim_next(owner="a", lease_s=60, now=111.0)
    assert claim is not None

    queue.give_back(claim, "The model is away", not_before=120.0, now=112.0)

    assert queue.claim_next(owner="a", lease_s=60, now=119.0) is None
    again = queue.claim_next(owner="a", lease_s=60, now=120.0)
    assert again is not None
    assert again.study.attempts == 1


def test_late_image_reopens_the_study_and_voids_the_running_analysis(
    intake: Intake, queue: WorkQueue, studies: Studies
) -> None:
    queue_study(intake)
    claim = queue.claim_next(owner="a", lease_s=60, now=111.0)
    assert claim is not None

    intake.register([received(3)], now=112.0)

    with pytest.raises(LeaseLost):
        queue.record(claim, finding(), now=113.0)
    [study] = studies.all()
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)


def test_later_analysis_supersedes_but_never_takes_a_flag_away(
    intake: Intake, queue: WorkQueue, studies: Studies
) -> None:
    for count, now, flagged in ((2, 110.0, True), (3, 210.0, False)):
        intake.register([received(number) for number in range(1, count + 1)], now=now)
        intake.complete("1.2.3", instance_count=count, completed_by="geometry", now=now)
        claim = queue.claim_next(owner="a", lease_s=60, now=now + 1)
        assert claim is not None
        queue.record(claim, finding(flagged=flagged), now=now + 5)

    newest, oldest = studies.analyses_of("1.2.3")
    assert (newest.superseded, oldest.superseded) == (False, True)
    assert studies.all()[0].flag_raised_at == 115.0


def test_image_after_reading_makes_the_study_unread_again(intake: Intake, ledger: Ledger, studies: Studies) -> None:
    queue_study(intake)
    with ledger.transaction() as db:
        db.execute("UPDATE studies SET reading_state = 'read'")

    intake.register([received(3)], now=120.0)

    assert studies.all()[0].reading_state is ReadingState.UNREAD


def test_move_outside_the_table_is_refused(intake: Intake, queue: WorkQueue, ledger: Ledger) -> None:
    from triage.ledger.rows import move_study

    intake.register([received(1)], now=100.0)

    with pytest.raises(StoreError, match="from receiving to analysed"), ledger.transaction() as db:
        move_study(db, "1.2.3", StudyState.ANALYSED)


def test_two_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(Ledger(tmp_path / "l.sqlite"))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(opened) == 8
    assert Studies(opened[0]).counts()[StudyState.RECEIVING] == 0
    for each in opened:
        each.close()


def test_writers_in_many_threads_wait_for_each_other(intake: Intake, studies: Studies) -> None:
    def push(study: str) -> None:
        for number in range(1, 11):
            intake.register([received(number, study=study)], now=100.0)

    threads = [threading.Thread(target=push, args=(f"1.{index}",)) for index in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert studies.instance_count() == 40
    assert [study.instance_count for study in studies.all()] == [10, 10, 10, 10]


def test_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l.sqlite")
    with first.transaction() as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES"
            " ('ich-triage', 'm999_later', 'now')"
        )
    first.close()

    with pytest.raises(StoreError, match="m999_later"):
        Ledger(tmp_path / "l.sqlite")


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


class LedgerMachine(RuleBasedStateMachine):
    """Any order of images, completions, claims, lapses and results: one state each, nothing lost."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "l.sqlite")
        self.intake, self.queue, self.studies = Intake(self.ledger), WorkQueue(self.ledger), Studies(self.ledger)
        self.now = 1000.0
        self.pushed: set[tuple[int, int]] = set()
        self.claims: list = []
        self.raised: set[str] = set()

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    @rule(study=st.integers(1, 3), number=st.integers(1, 5))
    def push(self, study: int, number: int) -> None:
        self.intake.register([received(number, study=f"1.{study}", at=self.tick())], now=self.now)
        self.pushed.add((study, number))

    @rule(study=st.integers(1, 3))
    def complete(self, study: int) -> None:
        count = sum(1 for each, _ in self.pushed if each == study)
        self.intake.complete(f"1.{study}", instance_count=count, completed_by="geometry", now=self.tick())

    @rule(wait_s=st.sampled_from([1.0, 100.0]))
    def claim(self, wait_s: float) -> None:
        self.now += wait_s
        claim = self.queue.claim_next(owner="a", lease_s=50, now=self.now)
        if claim:
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), result=st.sampled_from(["flag", "clear", "refuse", "fail", "give_back"]))
    def end(self, data: st.DataObject, result: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        act = {
            "flag": lambda: self.queue.record(claim, finding(flagged=True), now=self.tick()),
            "clear": lambda: self.queue.record(claim, finding(flagged=False), now=self.tick()),
            "refuse": lambda: self.queue.refuse(claim, NotAnalysedReason.NOT_CT, "MR", now=self.tick()),
            "fail": lambda: self.queue.fail(claim, "broke", now=self.tick()),
            "give_back": lambda: self.queue.give_back(claim, "away", not_before=0.0, now=self.tick()),
        }[result]
        try:
            act()
        except LeaseLost:
            return
        if result == "flag":
            self.raised.add(claim.study.study_instance_uid)

    @invariant()
    def every_image_is_kept_in_one_study_in_one_state(self) -> None:
        assert self.studies.instance_count() == len(self.pushed)
        assert sum(self.studies.counts().values()) == len({study for study, _ in self.pushed})

    @invariant()
    def at_most_one_analysis_counts_and_ended_studies_have_one(self) -> None:
        for study in self.studies.all():
            current = [each for each in self.studies.analyses_of(study.study_instance_uid) if not each.superseded]
            assert len(current) <= 1
            if study.state in FINAL_STATES:
                assert [each.outcome for each in current] == [study.state]
                assert current[0].revision == study.revision

    @invariant()
    def raised_flags_stay_raised(self) -> None:
        raised = {study.study_instance_uid for study in self.studies.all() if study.flag_raised_at is not None}
        assert raised == self.raised

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_any_order_of_events_keeps_the_laws = LedgerMachine.TestCase
