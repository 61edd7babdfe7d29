"""The thread that queues studies as soon as they are complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from dicom_listener.arrivals import Arrivals
from dicom_listener.completion import Arrival, Complete, CompletionRules, earliest, judge
from dicom_listener.metrics import Metrics
from triage.errors import StoreError
from triage.ledger.intake import Intake

log = structlog.get_logger()

LOOK_EVERY_S = 2.0  # for growing studies that other processes put into the ledger
TICK_S = 0.05  # the shortest wait between two looks: a burst of ending associations is one look


class Completer:
    """Judges each growing study when something has happened to it or its time has come.

    Args:
        intake: the ledger.
        arrivals: which associations bring which studies.
        rules: gives the rules for the studies of a sender, by its calling AE title.
        metrics: counts what was queued.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        intake: Intake,
        arrivals: Arrivals,
        rules: Callable[[str], CompletionRules],
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._arrivals = arrivals
        self._rules = rules
        self._metrics = metrics
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="completer", daemon=True)
        self._looked: dict[str, tuple[Arrival, float]] = {}  # what was judged, and when to judge it again

    def start(self) -> None:
        """Begin with the studies that were growing when the last listener ended."""
        self._thread.start()

    def stop(self) -> None:
        """End; growing studies are taken up again at the next start."""
        self._stopping.set()
        self._arrivals.wake()
        self._thread.join()

    def _run(self) -> None:
        seen, adopt_at = 0, 0.0
        while not self._stopping.is_set():
            now = self._clock()
            try:
                if now >= adopt_at:
                    self._adopt()
                    adopt_at = now + LOOK_EVERY_S
                next_look = self._look(now=now)
            except StoreError as error:
                log.error("completion_waits_for_ledger", error_type=type(error.__cause__ or error).__name__)
                next_look = now + LOOK_EVERY_S
            self._stopping.wait(TICK_S)
            seen = self._arrivals.wait(seen, max(0.0, min(next_look, adopt_at) - self._clock()))

    def _adopt(self) -> None:
        for study in self._intake.receiving():
            self._arrivals.adopt(
                study.study_instance_uid, last_image_at=study.last_image_at, calling_ae_title=study.calling_ae_title
            )

    def _look(self, *, now: float) -> float:
        """Judge what is due; give when the next one is."""
        growing = self._arrivals.growing()
        self._looked = {uid: looked for uid, looked in self._looked.items() if uid in growing}
        for uid, arrival in growing.items():
            judged, due_at = self._looked.get(uid, (None, 0.0))
            if arrival != judged or now >= due_at:
                self._judge(uid, arrival, now=now)
        return min((due_at for _, due_at in self._looked.values()), default=now + LOOK_EVERY_S)

    def _judge(self, uid: str, arrival: Arrival, *, now: float) -> None:
        rules = self._rules(arrival.calling_ae_title)
        due_at = earliest(arrival, rules)
        if now < due_at:  # no verdict but Wait is possible: spare the ledger a look at each image
            self._looked[uid] = (arrival, due_at)
            return
        instances = self._intake.instances_of(uid)
        verdict = judge(instances, arrival, rules, now=now)
        if not isinstance(verdict, Complete):
            self._looked[uid] = (arrival, verdict.until)
            return
        done = self._intake.complete(
            uid, instance_count=len(instances), completed_by=verdict.completed_by, now=now, partial=verdict.partial
        )
        self._looked.pop(uid, None)
        if done:
            self._metrics.count("ich_listener_studies_complete_total", completed_by=verdict.completed_by)
            log.info("study_complete", completed_by=verdict.completed_by, partial=verdict.partial,
                     instances=len(instances), waited_s=round(now - arrival.last_image_at, 3))  # fmt: skip
        if done or not self._still_receiving(uid):
            self._arrivals.gone_on(uid, arrival)

    def _still_receiving(self, uid: str) -> bool:
        return any(study.study_instance_uid == uid for study in self._intake.receiving())
