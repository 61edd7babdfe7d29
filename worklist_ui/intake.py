"""How images come in, for who looks after the PACS: the comparison with it, what was kept apart, disk and workers.

Every image that was accepted stands somewhere: in a study of the list, among the conflicts, or in quarantine.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from triage.ledger import Ledger
from triage.ledger.kept_files import QuarantinedObject, QuarantineList
from triage.ledger.reconciliation import Coverage, GapState, Reconciliations
from triage.ledger.studies import Conflict, Studies, WorkerReport
from triage.settings import ReconcileSettings, Settings
from worklist_ui.wording import duration, gigabytes

LATE_AFTER = 2.0  # intervals without a comparison; one may take long or be retried
NEAR = 2.0  # times the least free disk: time to make room before images are refused
FRESH_S = 5.0  # open lists ask with every change; what an administrator must see to can wait so long
SAID_S = 86_400.0  # what was kept apart is said above the list for a day, and stays on the page
NEWEST = 50  # of what was kept apart, on the page


@dataclass(frozen=True)
class Intake:
    """What the page shows."""

    coverage: Coverage | None  # None: the PACS was never compared with
    instances: int  # images in studies
    conflict_count: int
    quarantined_count: int
    conflicts: tuple[Conflict, ...]  # newest first
    quarantined: tuple[QuarantinedObject, ...]  # newest first
    free_bytes: int | None  # None: the disk cannot be asked
    least_free_bytes: int
    workers: tuple[WorkerReport, ...]


class IntakeWatch:
    """Reads it from ledger and disk.

    Args:
        ledger: of this host.
        settings: `storage`, `listener` and `reconcile`, as the listener on this host has them.
        clock: seconds since the epoch.
    """

    def __init__(self, ledger: Ledger, settings: Settings, clock: Callable[[], float]) -> None:
        self._studies = Studies(ledger)
        self._quarantine = QuarantineList(ledger)
        self._reconciliations = Reconciliations(ledger)
        self._settings = settings
        self._clock = clock
        self._said: tuple[float, tuple[str, ...]] = (-math.inf, ())

    def look(self) -> Intake:
        """Look at all of it now."""
        return Intake(
            coverage=self._reconciliations.latest(),
            instances=self._studies.instance_count(),
            conflict_count=self._studies.conflict_count(),
            quarantined_count=self._studies.quarantined_count(),
            conflicts=tuple(self._studies.conflicts(newest=NEWEST)),
            quarantined=tuple(reversed(self._quarantine.all()[-NEWEST:])),
            free_bytes=_free_bytes(self._settings.storage.folder),
            least_free_bytes=self._settings.listener.min_free_bytes,
            workers=tuple(self._studies.workers()),
        )

    def concerns(self, seen: Intake | None = None) -> tuple[str, ...]:
        """Say what a person must see to, each in one sentence; empty: nothing.

        Args:
            seen: what was looked at just now; None: what was said within `FRESH_S` is said again.
        """
        now = self._clock()
        if seen is None and abs(now - self._said[0]) < FRESH_S:
            return self._said[1]
        self._said = (now, concerns_of(seen or self.look(), self._settings.reconcile, now=now))
        return self._said[1]


def concerns_of(intake: Intake, settings: ReconcileSettings, *, now: float) -> tuple[str, ...]:
    """Say what is wrong with the comparison, the disk and what was kept apart."""
    return (
        *_of_coverage(intake.coverage, settings, now),
        *_of_disk(intake),
        *_of_kept_apart(intake, now),
    )


def headline(coverage: Coverage, *, now: float) -> str:
    """Say a comparison in one line: "312 of 312 images, 9 of 9 head CTs, today"."""
    today = datetime.fromtimestamp(now).astimezone().date().isoformat()
    if coverage.first_day == coverage.last_day:
        when = "today" if coverage.last_day == today else f"on {coverage.last_day}"
    else:
        when = f"from {coverage.first_day} to {coverage.last_day}"
    return (
        f"{coverage.instances_present} of {coverage.instances_expected} images, "
        f"{coverage.studies_complete} of {coverage.studies_expected} head CTs, {when}"
    )


def _of_coverage(coverage: Coverage | None, settings: ReconcileSettings, now: float) -> tuple[str, ...]:
    if coverage is None:
        return ()
    said = []
    if coverage.error:
        said.append(f"The last comparison with the PACS could not be finished: {coverage.error}")
    lasting = [gap for gap in coverage.gaps if gap.state is not GapState.ARRIVING]
    missing = sum(max(0, gap.expected - gap.present) for gap in lasting)
    if missing:
        studies = f"{len(lasting)} {'study' if len(lasting) == 1 else 'studies'}"
        said.append(f"The PACS has {_images(missing)} of {studies} that did not come here.")
    since_s = now - coverage.ended_at
    if since_s > LATE_AFTER * settings.every_minutes * 60:
        said.append(
            f"The last comparison with the PACS ended {duration(since_s)} ago; "
            f"one every {duration(settings.every_minutes * 60)} is set."
        )
    return tuple(said)


def _of_disk(intake: Intake) -> tuple[str, ...]:
    if intake.free_bytes is None:
        return ("The disk with the images does not answer.",)
    free = gigabytes(intake.free_bytes)
    if intake.free_bytes < intake.least_free_bytes:
        return (f"The disk is full: {free} free, so that images are refused. Make room.",)
    if intake.free_bytes < NEAR * intake.least_free_bytes:
        return (f"The disk fills up: {free} free; below {gigabytes(intake.least_free_bytes)} images are refused.",)
    return ()


def _of_kept_apart(intake: Intake, now: float) -> tuple[str, ...]:
    quarantined = sum(now - item.received_at < SAID_S for item in intake.quarantined)
    conflicting = sum(now - item.received_at < SAID_S for item in intake.conflicts)
    said = []
    if quarantined:
        said.append(f"{_counted(quarantined, 'object')} of the last 24 h could not be taken as images.")
    if conflicting:
        said.append(f"{_counted(conflicting, 'image')} of the last 24 h came again with other content.")
    return tuple(said)


def _counted(count: int, what: str) -> str:
    number = f"{NEWEST} or more" if count >= NEWEST else str(count)
    return f"{number} {what}{'' if count == 1 else 's'}"


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
