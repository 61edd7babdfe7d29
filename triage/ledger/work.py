"""What a worker writes: leases on queued studies, and what came of them.

A claim is a lease with an expiry and a fencing number. A killed worker's study is claimed again once the lease has
lapsed; whatever the first worker still says is refused, because its fence is old.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlite_utils import Database

from triage.errors import LeaseLost
from triage.finding import Finding, SeriesChoice
from triage.ledger.connection import Ledger
from triage.ledger.rows import move_study, record_event, study_from
from triage.study import Claim, NotAnalysedReason, Study, StudyState

FORGET_WORKER_S = 86_400.0


class WorkQueue:
    """The worker's side of the ledger.

    Args:
        ledger: where studies are queued.
        max_attempts: a study whose worker ended this often in mid-run is failed instead of run again.
    """

    def __init__(self, ledger: Ledger, *, max_attempts: int = 3) -> None:
        self._ledger = ledger
        self._max_attempts = max_attempts

    def claim_next(self, *, owner: str, lease_s: float, now: float) -> Claim | None:
        """Take the next study: STAT first, then by the time it was queued; None if there is none.

        A study whose lease lapsed is taken again, at most `max_attempts` times in all.
        """
        with self._ledger.transaction() as db:
            while (row := _next_row(db, now=now)) is not None:
                if row["state"] == StudyState.RUNNING.value and row["attempts"] >= self._max_attempts:
                    _fail_lapsed(db, row, now=now)
                    continue
                return _take(db, row, owner=owner, expires_at=now + lease_s, now=now)
        return None

    def extend(self, claim: Claim, *, lease_s: float, now: float) -> Claim:
        """Hold a claim for `lease_s` seconds from now.

        Raises:
            LeaseLost: stop working on it.
        """
        with self._ledger.transaction() as db:
            _check_fence(db, claim)
            expires_at = now + lease_s
            db.execute("UPDATE studies SET lease_expires_at = ? WHERE study_id = ?", [expires_at, claim.study.study_id])
        return Claim(claim.study, claim.owner, claim.fence, expires_at)

    def record(self, claim: Claim, finding: Finding, *, now: float) -> None:
        """Record what was found, in one transaction with the study's state.

        A raised flag stays raised: `flag_raised_at` is kept when a later analysis of more images finds nothing.

        Raises:
            LeaseLost: nothing was recorded.
        """
        with self._ledger.transaction() as db:
            _check_fence(db, claim)
            _supersede(db, claim.study)
            _add_analysis(
                db,
                claim.study,
                StudyState.ANALYSED,
                now=now,
                flagged=int(finding.flagged),
                probability=finding.probability,
                volume_ml=finding.volume_ml,
                model_name=finding.model_name,
                model_version=finding.model_version,
                finding=finding_json(finding),
                series_choices=choices_json(finding.series_choices),
            )
            raised: dict[str, Any] = {}
            if finding.flagged and _flag_raised_at(db, claim.study) is None:
                raised["flag_raised_at"] = now
            _end(db, claim, StudyState.ANALYSED, found_at=now, **raised)
            record_event(
                db,
                claim.study.study_instance_uid,
                "flagged" if finding.flagged else "not_flagged",
                now=now,
                actor=claim.owner,
                detail=f"probability {finding.probability:.3f}, {finding.volume_ml:.1f} mL",
            )

    def refuse(
        self,
        claim: Claim,
        reason: NotAnalysedReason,
        measured: str,
        *,
        now: float,
        series_choices: Sequence[SeriesChoice] = (),
    ) -> None:
        """Record that the model must not read this study, and why.

        Raises:
            LeaseLost: nothing was recorded.
        """
        with self._ledger.transaction() as db:
            _check_fence(db, claim)
            _supersede(db, claim.study)
            _add_analysis(
                db,
                claim.study,
                StudyState.NOT_ANALYSED,
                now=now,
                reason=reason.value,
                detail=measured,
                series_choices=choices_json(series_choices),
            )
            _end(db, claim, StudyState.NOT_ANALYSED, found_at=now, reason=reason.value, detail=measured)
            record_event(
                db,
                claim.study.study_instance_uid,
                "not_analysed",
                now=now,
                actor=claim.owner,
                detail=f"{reason.value}: {measured}",
            )

    def fail(self, claim: Claim, cause: str, *, now: float) -> None:
        """Record a fault of ours: the study stays on the list and can be queued again.

        Raises:
            LeaseLost: nothing was recorded.
        """
        with self._ledger.transaction() as db:
            _check_fence(db, claim)
            _fail(db, claim.study, cause, actor=claim.owner, now=now)

    def give_back(self, claim: Claim, cause: str, *, not_before: float, now: float) -> None:
        """Queue a study again through no fault of its own (the model is away); the attempt does not count.

        Raises:
            LeaseLost: nothing was recorded.
        """
        with self._ledger.transaction() as db:
            _check_fence(db, claim)
            uid = claim.study.study_instance_uid
            move_study(
                db,
                uid,
                StudyState.QUEUED,
                not_before=not_before,
                attempts=max(0, claim.study.attempts - 1),
                lease_owner=None,
                lease_expires_at=None,
                detail=cause,
            )
            record_event(db, uid, "given_back", now=now, actor=claim.owner, detail=cause)

    def report(self, *, owner: str, model_available: bool, detail: str, now: float) -> None:
        """Say that this worker lives, and whether it can reach its model; forget workers unseen for a day."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO workers (owner, seen_at, model_available, detail) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at,"
                " model_available = excluded.model_available, detail = excluded.detail",
                [owner, now, int(model_available), detail],
            )
            db.execute("DELETE FROM workers WHERE seen_at < ?", [now - FORGET_WORKER_S])

    def leave(self, owner: str) -> None:
        """Say that this worker has stopped in good order."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM workers WHERE owner = ?", [owner])

    def queue_again(self, study_instance_uid: str, *, actor: str, now: float) -> bool:
        """Queue an ended study for another run, asked for by a person; False if it has not ended."""
        with self._ledger.transaction() as db:
            ended = (StudyState.ANALYSED.value, StudyState.NOT_ANALYSED.value, StudyState.FAILED.value)
            row = db.execute("SELECT state FROM studies WHERE study_instance_uid = ?", [study_instance_uid]).fetchone()
            if row is None or row[0] not in ended:
                return False
            move_study(
                db, study_instance_uid, StudyState.QUEUED, queued_at=now, not_before=None, attempts=0,
                reason=None, detail="",
            )  # fmt: skip
            record_event(db, study_instance_uid, "queued_again", now=now, actor=actor)
            return True


def finding_json(finding: Finding) -> str:
    """Give a finding as the ledger keeps it; `studies.finding_from` reads it."""
    values = asdict(finding)
    values["operating_point"] = finding.operating_point.model_dump()
    del values["series_choices"]  # kept in a column of their own, as refusals have them too
    return json.dumps(values)


def choices_json(choices: Sequence[SeriesChoice]) -> str:
    """Give the series choices as the ledger keeps them."""
    return json.dumps([asdict(choice) for choice in choices])


def _next_row(db: Database, *, now: float) -> dict[str, Any] | None:
    rows = db.query(
        "SELECT * FROM studies WHERE (state = 'queued' AND COALESCE(not_before, 0) <= :now)"
        " OR (state = 'running' AND lease_expires_at <= :now)"
        " ORDER BY (priority = 'stat') DESC, queued_at, study_id LIMIT 1",
        {"now": now},
    )
    return next(iter(rows), None)


def _take(db: Database, row: dict[str, Any], *, owner: str, expires_at: float, now: float) -> Claim:
    fence = row["fence"] + 1
    uid = row["study_instance_uid"]
    if row["state"] == StudyState.RUNNING.value:
        record_event(db, uid, "lease_lapsed", now=now, actor=row["lease_owner"] or "")
        move_study(db, uid, StudyState.QUEUED)
    move_study(
        db,
        uid,
        StudyState.RUNNING,
        started_at=now,
        attempts=row["attempts"] + 1,
        lease_owner=owner,
        lease_expires_at=expires_at,
        fence=fence,
        detail="",
    )
    record_event(db, uid, "started", now=now, actor=owner)
    taken = next(iter(db.query("SELECT * FROM studies WHERE study_id = ?", [row["study_id"]])))
    return Claim(study_from(taken), owner, fence, expires_at)


def _check_fence(db: Database, claim: Claim) -> None:
    row = db.execute("SELECT state, fence FROM studies WHERE study_id = ?", [claim.study.study_id]).fetchone()
    if row != (StudyState.RUNNING.value, claim.fence):
        found = "it is gone" if row is None else f"it is {row[0]} under fence {row[1]}"
        raise LeaseLost(f"The study is no longer held under fence {claim.fence}: {found}. This result is void.")


def _end(db: Database, claim: Claim, state: StudyState, **values: Any) -> None:
    move_study(
        db,
        claim.study.study_instance_uid,
        state,
        lease_owner=None,
        lease_expires_at=None,
        not_before=None,
        **values,
    )


def _fail(db: Database, study: Study, cause: str, *, actor: str, now: float) -> None:
    uid = study.study_instance_uid
    _supersede(db, study)
    _add_analysis(db, study, StudyState.FAILED, now=now, detail=cause)
    move_study(db, uid, StudyState.FAILED, detail=cause, lease_owner=None, lease_expires_at=None, found_at=now)
    record_event(db, uid, "failed", now=now, actor=actor, detail=cause)


def _fail_lapsed(db: Database, row: dict[str, Any], *, now: float) -> None:
    cause = f"The worker ended {row['attempts']} times while it ran this study; look for its log lines."
    _fail(db, study_from(row), cause, actor=row["lease_owner"] or "", now=now)


def _supersede(db: Database, study: Study) -> None:
    db.execute(
        "UPDATE analyses SET superseded = 1 WHERE study_instance_uid = ? AND superseded = 0",
        [study.study_instance_uid],
    )


def _add_analysis(db: Database, study: Study, outcome: StudyState, *, now: float, **values: Any) -> None:
    row = {
        "study_instance_uid": study.study_instance_uid,
        "revision": study.revision,
        "at": now,
        "outcome": outcome.value,
        "superseded": 0,
        **values,
    }
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO analyses ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608


def _flag_raised_at(db: Database, study: Study) -> float | None:
    row = db.execute("SELECT flag_raised_at FROM studies WHERE study_id = ?", [study.study_id]).fetchone()
    return None if row is None else row[0]
