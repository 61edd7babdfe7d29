"""Who was given which study's images: a line in the study's history."""

from __future__ import annotations

from triage.ledger.connection import Ledger
from triage.ledger.rows import record_event


class Retrievals:
    """What the worklist gives to other programs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def note(self, study_instance_uid: str, actor: str, *, detail: str, now: float) -> None:
        """Note that somebody was given images of a study.

        Raises:
            StoreError: it could not be noted; nothing may be given.
        """
        with self._ledger.transaction() as db:
            record_event(db, study_instance_uid, "retrieved", now=now, actor=actor, detail=detail)
