"""Whatever senders do: one row a study and one current analysis, of all its images. Completer and ledger are real."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dicom_listener.arrivals import Arrivals
from dicom_listener.completer import Completer
from dicom_listener.metrics import Metrics
from tests.dicom_listener.simulated_senders import RULES, slices
from tests.triage.test_ledger import finding
from triage.errors import LeaseLost
from triage.ledger import Ledger
from triage.ledger.intake import Intake, Received
from triage.ledger.studies import Studies
from triage.ledger.work import Claim, WorkQueue
from triage.study import Instance, PatientHeader, StudyState

STUDIES = {uid: slices(24, series=f"{uid}.1", study=uid) for uid in ("1.2.1", "1.2.2", "1.2.3")}
LONG_S = 2 * RULES.cap_s  # by then everything that was sent is complete
LEASE_S = 50.0


class SendersMachine(RuleBasedStateMachine):
    """Any order of associations, images, releases, aborts, waits, restarts of the listener, and work."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "ledger.sqlite")
        self.intake, self.queue, self.studies = Intake(self.ledger), WorkQueue(self.ledger), Studies(self.ledger)
        self.now = 1000.0
        self.numbers = 0
        self.open: list[int] = []
        self.claims: list[Claim] = []
        self.sent: dict[str, set[str]] = {}
        self._start_listener()

    def _start_listener(self) -> None:
        self.arrivals = Arrivals(gap_max_s=RULES.quiet_period_s)
        self.completer = Completer(self.intake, self.arrivals, lambda _: RULES, Metrics(), clock=lambda: self.now)
        self.open.clear()

    def _look(self) -> None:
        self.completer._adopt()
        self.completer._look(now=self.now)

    @rule(calling=st.sampled_from(["PACS", "CT1"]))
    def open_association(self, calling: str) -> None:
        self.numbers += 1
        self.open.append(self.numbers)
        self.arrivals.association_opened(self.numbers, calling_ae_title=calling)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), uid=st.sampled_from(sorted(STUDIES)), first=st.integers(0, 23), count=st.integers(1, 24),
          step=st.sampled_from([1, 1, 2]))  # fmt: skip
    def send(self, data: st.DataObject, uid: str, first: int, count: int, step: int) -> None:
        association = data.draw(st.sampled_from(self.open))
        for image in STUDIES[uid][first : first + count : step]:
            self._store(replace(image, received_at=self.now), association)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), uid=st.sampled_from(sorted(STUDIES)))
    def send_all(self, data: st.DataObject, uid: str) -> None:
        association = data.draw(st.sampled_from(self.open))
        for image in STUDIES[uid]:
            self._store(replace(image, received_at=self.now), association)

    def _store(self, image: Instance, association: int) -> None:
        self.now += 0.02
        self.arrivals.image(image.study_instance_uid, association=association, now=self.now)
        self.intake.register([Received(image, PatientHeader())], now=self.now)
        self.sent.setdefault(image.study_instance_uid, set()).add(image.sop_instance_uid)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), aborted=st.booleans())
    def end_association(self, data: st.DataObject, aborted: bool) -> None:
        association = data.draw(st.sampled_from(self.open))
        self.open.remove(association)
        self.arrivals.association_ended(association, aborted=aborted, now=self.now)

    @rule(seconds=st.sampled_from([0.1, 1.5, 6.0, 25.0, LONG_S]))
    def wait(self, seconds: float) -> None:
        self._look()
        self.now += seconds
        self._look()

    @rule()
    def restart_listener(self) -> None:
        self._start_listener()

    @rule()
    def claim(self) -> None:
        claim = self.queue.claim_next(owner="worker", lease_s=LEASE_S, now=self.now)
        self.claims += [claim] if claim is not None else []

    @precondition(lambda self: self.claims)
    @rule()
    def finish(self) -> None:
        claim = self.claims.pop(0)
        try:
            self.queue.record(claim, finding(), now=self.now)
        except LeaseLost:
            return  # images came meanwhile, or another worker took over

    @invariant()
    def each_study_is_there_once_with_all_its_images(self) -> None:
        rows = self.studies.all()
        assert sorted(study.study_instance_uid for study in rows) == sorted(self.sent)
        assert {study.study_instance_uid: study.instance_count for study in rows} == {
            uid: len(images) for uid, images in self.sent.items()
        }

    @invariant()
    def at_most_one_analysis_is_current_and_it_is_of_the_present_images(self) -> None:
        for study in self.studies.all():
            analyses = self.studies.analyses_of(study.study_instance_uid)
            current = [analysis for analysis in analyses if not analysis.superseded]
            assert len(current) <= 1
            if study.state is StudyState.ANALYSED:
                assert [analysis.revision for analysis in current] == [study.revision]

    def teardown(self) -> None:
        """In the end, whatever happened: every study is queued, analysed, and has one current analysis."""
        try:
            for association in self.open:
                self.arrivals.association_ended(association, aborted=False, now=self.now)
            self._look()
            self.now += LONG_S
            self._look()
            self.claims.clear()
            while (claim := self.queue.claim_next(owner="last", lease_s=LEASE_S, now=self.now)) is not None:
                self.queue.record(claim, finding(), now=self.now)
            for study in self.studies.all():
                assert study.state in (StudyState.ANALYSED, StudyState.FAILED), study.state  # failed: claimed too often
                analyses = self.studies.analyses_of(study.study_instance_uid)
                current = sum(not analysis.superseded for analysis in analyses)
                assert current == 1 or (current == 0 and study.state is StudyState.FAILED)
            self.each_study_is_there_once_with_all_its_images()
        finally:
            self.ledger.close()
            self.folder.cleanup()


TestSenders = SendersMachine.TestCase
TestSenders.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
