"""What the PACS has and the ledger has not: runs of the comparison, and what each found missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from triage.ledger.connection import Ledger

KEPT_RUNS = 9000  # a year of hourly runs; older ones are removed as new ones are recorded


class GapState(StrEnum):
    """Why a study counts as incomplete."""

    ARRIVING = "arriving"  # its images come in right now
    MISSING = "missing"  # nothing is done about it: fetching is switched off
    FETCH_FAILED = "fetch_failed"  # tried, to be tried again by the next run
    GIVEN_UP = "given_up"  # tried as often as is set; a person must look


@dataclass(frozen=True)
class Gap:
    """A study of which the PACS has images that the ledger has not.

    Attributes:
        study_instance_uid: the study.
        study_date: PS3.5 6.2 VR DA, as the PACS gives it.
        expected: CT images that the PACS has.
        present: how many of them the ledger has.
        state: what is done about it.
        attempts: runs that have tried to fetch it.
        detail: what the PACS said, without patient data.
    """

    study_instance_uid: str
    study_date: str
    expected: int
    present: int
    state: GapState
    attempts: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Coverage:
    """One comparison of the PACS with the ledger.

    Attributes:
        started_at: seconds since the epoch.
        ended_at: seconds since the epoch.
        first_day: of the studies asked for, ISO 8601.
        last_day: the same.
        studies_expected: head CT studies that the PACS has.
        studies_complete: of these, how many the ledger has whole.
        instances_expected: CT images in them.
        instances_present: of these, how many the ledger has.
        instances_fetched: of these, how many this run has fetched.
        error: why the comparison could not be finished; empty if it was.
        gaps: the studies that are incomplete.
    """

    started_at: float
    ended_at: float
    first_day: str
    last_day: str
    studies_expected: int
    studies_complete: int
    instances_expected: int
    instances_present: int
    instances_fetched: int
    error: str = ""
    gaps: tuple[Gap, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the ledger has every image that the PACS has."""
        return not self.error and not self.gaps and self.instances_present == self.instances_expected


class Reconciliations:
    """The comparisons that were made."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, coverage: Coverage) -> None:
        """Keep one comparison with its gaps.

        Raises:
            StoreError: the ledger takes no rows.
        """
        values = asdict(coverage)
        del values["gaps"]
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self._ledger.transaction() as db:
            row = db.execute(
                f"INSERT INTO reconciliations ({names}) VALUES ({marks})",  # noqa: S608
                list(values.values()),
            )
            for gap in coverage.gaps:
                db.execute(
                    "INSERT INTO reconciliation_gaps (reconciliation_id, study_instance_uid, study_date, expected,"
                    " present, state, attempts, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [row.lastrowid, *asdict(gap).values()],
                )
            oldest = [(row.lastrowid or 0) - KEPT_RUNS]
            db.execute("DELETE FROM reconciliation_gaps WHERE reconciliation_id <= ?", oldest)
            db.execute("DELETE FROM reconciliations WHERE reconciliation_id <= ?", oldest)

    def latest(self) -> Coverage | None:
        """Give the last comparison, or None before the first."""
        rows = self._ledger.db.query("SELECT * FROM reconciliations ORDER BY reconciliation_id DESC LIMIT 1")
        row = next(iter(rows), None)
        if row is None:
            return None
        number = row.pop("reconciliation_id")
        return Coverage(**row, gaps=tuple(self._gaps_of(number)))

    def _gaps_of(self, number: int) -> Sequence[Gap]:
        rows = self._ledger.db.query(
            "SELECT study_instance_uid, study_date, expected, present, state, attempts, detail"
            " FROM reconciliation_gaps WHERE reconciliation_id = ? ORDER BY rowid",
            [number],
        )
        return [Gap(**(row | {"state": GapState(row["state"])})) for row in rows]

    def held_counts(self, study_instance_uid: str) -> dict[str, int]:
        """Give how many instances of each series of a study the ledger has."""
        rows = self._ledger.db.execute(
            "SELECT series_instance_uid, COUNT(*) FROM instances WHERE study_instance_uid = ?"
            " GROUP BY series_instance_uid",
            [study_instance_uid],
        )
        return dict(rows.fetchall())

    def held_instances(self, study_instance_uid: str) -> set[str]:
        """Give the SOP Instance UIDs of a study that were received, those kept apart as conflicts too."""
        rows = self._ledger.db.execute(
            "SELECT sop_instance_uid FROM instances WHERE study_instance_uid = ?"
            " UNION SELECT sop_instance_uid FROM conflicts WHERE study_instance_uid = ?",
            [study_instance_uid, study_instance_uid],
        )
        return {row[0] for row in rows}

    def last_image_at(self, study_instance_uid: str) -> float | None:
        """Give when the newest image of a study came, seconds since the epoch; None: none ever did."""
        row = self._ledger.db.execute(
            "SELECT last_image_at FROM studies WHERE study_instance_uid = ?", [study_instance_uid]
        ).fetchone()
        return None if row is None else float(row[0])
