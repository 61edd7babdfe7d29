"""The worker's loop: claim a study, read it, record what came of it; wait when there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from inference.pipeline import Network, Refusal, Stopwatch, read_study
from inference.worker_metrics import WorkerMetrics
from triage.errors import LeaseLost, ServingError, ServingUnavailable
from triage.finding import Finding
from triage.ledger.studies import Studies
from triage.ledger.work import WorkQueue
from triage.probability_map import ProbabilityMap, map_path, write_map
from triage.stop_signal import StopSignal
from triage.study import Claim

log = structlog.get_logger()


@dataclass(frozen=True)
class Worker:
    """One worker: it holds one study at a time, by a lease in its own name.

    Args:
        queue: where studies are claimed and results recorded.
        studies: where a study's instances are looked up.
        folder: the storage folder that instance paths are relative to.
        network: what reads slabs.
        owner: this worker's name in leases and histories.
        lease_s: how long a claim is held without a sign of life.
        retry_after_s: how long a study waits when the model is away.
        metrics: counts studies.
        keep_maps: probability maps are kept for research.
        clock: seconds since the epoch.
    """

    queue: WorkQueue
    studies: Studies
    folder: Path
    network: Network
    owner: str
    lease_s: float
    retry_after_s: float
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    keep_maps: bool = False
    clock: Callable[[], float] = time.time

    def run(self, stop: threading.Event | StopSignal, *, poll_interval_s: float) -> None:
        """Read studies until `stop` is set; the study in hand is finished first.

        While the model is away nothing is claimed: studies wait in the queue as they are.
        """
        watch = ModelWatch(self)
        while not stop.is_set():
            if not watch.available(self.clock()):
                stop.wait(self.retry_after_s)
            elif not self.run_once():
                stop.wait(poll_interval_s)
        self.queue.leave(self.owner)

    def run_once(self) -> bool:
        """Claim and read one study; False if none is waiting."""
        claim = self.queue.claim_next(owner=self.owner, lease_s=self.lease_s, now=self.clock())
        if claim is None:
            return False
        bound = log.bind(study_id=claim.study.study_id, revision=claim.study.revision, attempt=claim.study.attempts)
        try:
            self._read(claim, bound)
        except LeaseLost as lost:
            bound.info("lease_lost", cause=str(lost))  # late images, or another worker has it: nothing is lost
        return True

    def _read(self, claim: Claim, bound: structlog.stdlib.BoundLogger) -> None:
        watch = Stopwatch(between=lambda: self._hold(claim))
        instances = self.studies.instances_of(claim.study.study_instance_uid)
        paths = [self.folder / instance.path for instance in instances]
        keep_map = partial(self._keep_map, claim) if self.keep_maps else None
        try:
            result = read_study(paths, self.network, watch, keep_map=keep_map)
        except LeaseLost:
            raise
        except ServingUnavailable as away:
            self._give_back(claim, away, bound)
            self.metrics.study_ended("waits", watch.seconds)
        except ServingError as refused:
            self._fail(claim, f"The model endpoint refused: {refused} ({refused.code})", bound)
            self.metrics.study_ended("failed", watch.seconds)
        except Exception as error:  # noqa: BLE001 - one broken study must not end the worker; it is shown as failed
            bound.exception("study_broke_the_worker")
            self._fail(claim, f"{type(error).__name__} while it was read; the worker's log has the place", bound)
            self.metrics.study_ended("failed", watch.seconds)
        else:
            self._record(claim, result, watch, bound)
            outcome = "not_analysed" if isinstance(result, Refusal) else "analysed"
            self.metrics.study_ended(outcome, watch.seconds)

    def _keep_map(self, claim: Claim, kept: ProbabilityMap) -> str:
        """Keep a map and give its path; a disk that takes none costs the map, never the finding."""
        path = map_path(claim.study.study_instance_uid, claim.study.revision)
        try:
            write_map(self.folder / path, kept)
        except OSError as error:
            log.warning("map_not_kept", study_id=claim.study.study_id, error_type=type(error).__name__)
            return ""
        return path.as_posix()

    def _hold(self, claim: Claim) -> None:
        self.queue.extend(claim, lease_s=self.lease_s, now=self.clock())

    def _record(
        self, claim: Claim, result: Finding | Refusal, watch: Stopwatch, bound: structlog.stdlib.BoundLogger
    ) -> None:
        now = self.clock()
        took_s = round(sum(watch.seconds.values()), 3)
        if isinstance(result, Refusal):
            self.queue.refuse(claim, result.reason, result.measured, now=now, series_choices=result.series_choices)
            bound.info("study_not_analysed", reason=result.reason.value, seconds=took_s)
            return
        self.queue.record(claim, result, now=now)
        bound.info(
            "study_read",
            flagged=result.flagged,
            slabs=result.slab_count,
            model=result.model_name,
            version=result.model_version,
            seconds=took_s,
            waited_s=round(now - claim.study.last_image_at, 3),
        )

    def _give_back(self, claim: Claim, away: ServingUnavailable, bound: structlog.stdlib.BoundLogger) -> None:
        now = self.clock()
        cause = f"The model is away ({away.code}); the study waits for it"
        self.queue.give_back(claim, cause, not_before=now + self.retry_after_s, now=now)
        bound.warning("model_away", code=away.code)

    def _fail(self, claim: Claim, cause: str, bound: structlog.stdlib.BoundLogger) -> None:
        self.queue.fail(claim, cause, now=self.clock())
        bound.error("study_failed", cause=cause)


class ModelWatch:
    """Whether the model can be reached, asked for at most every `retry_after_s` and told to the ledger."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._asked_at = float("-inf")
        self._available: bool | None = None

    def available(self, now: float) -> bool:
        """Tell whether the model answered when it was last asked."""
        if now - self._asked_at < self._worker.retry_after_s and self._available:
            return True
        self._asked_at = now
        available, detail = self._ask()
        if available != self._available:
            log.info("model_available" if available else "model_away", cause=detail)
        self._available = available
        self._worker.metrics.model_seen(available=available)
        self._worker.queue.report(owner=self._worker.owner, model_available=available, detail=detail, now=now)
        return available

    def _ask(self) -> tuple[bool, str]:
        try:
            spec, version = self._worker.network.spec()
        except ServingError as error:
            return False, f"{error.code}: {error}"
        return True, f"{spec.name} version {version}"
