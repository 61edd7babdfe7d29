"""The head CTs of the PACS beside the ledger: which studies are expected, and which of their images are not here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from dicom_listener.pacs import Pacs, PacsError, PacsSeries, PacsStudy
from dicom_listener.retrieving import Wanted
from triage.ledger.reconciliation import Coverage, GapState, Reconciliations
from triage.settings import ReconcileSettings

CT = "CT"
CATCH_UP_DAYS = 7  # how far back an hourly comparison goes for what the last ones could not do


@dataclass(frozen=True)
class Period:
    """Study dates to ask for, both included."""

    first_day: date
    last_day: date

    def days(self) -> Iterator[date]:
        """Give each day, the newest first: a triage device is about today."""
        for back in range((self.last_day - self.first_day).days + 1):
            yield self.last_day - timedelta(days=back)


@dataclass(frozen=True)
class Shortage:
    """A CT series of which the ledger lacks images."""

    series_instance_uid: str
    expected: int
    missing: int
    sop_instance_uids: tuple[str, ...] = ()  # of the missing; empty: not known which


@dataclass(frozen=True)
class Compared:
    """A head CT study of the PACS beside the ledger."""

    study: PacsStudy
    expected: int
    shortages: tuple[Shortage, ...] = ()

    @property
    def present(self) -> int:
        """How many of the expected images the ledger has."""
        return self.expected - sum(item.missing for item in self.shortages)


class Comparison:
    """Compares studies over one association with the PACS.

    Args:
        pacs: open for questions.
        ledger: what was received.
        settings: which studies count.
    """

    def __init__(self, pacs: Pacs, ledger: Reconciliations, settings: ReconcileSettings) -> None:
        self._pacs = pacs
        self._ledger = ledger
        self._settings = settings

    def studies(self, period: Period) -> Iterator[Compared]:
        """Give each head CT of a period.

        Raises:
            PacsError: the PACS refused, or could not tell all.
        """
        modality = CT if self._settings.match_modality else ""
        for day in period.days():
            for study in self._pacs.studies(day, modality=modality):
                compared = self._compare(study) if CT in study.modalities or not study.modalities else None
                if compared is not None:
                    yield compared

    def _compare(self, study: PacsStudy) -> Compared | None:
        """Compare one study; None: it is no head CT."""
        series = [item for item in self._pacs.series(study.study_instance_uid) if item.modality in (CT, "")]
        held = self._ledger.held_counts(study.study_instance_uid)
        if not series or not (held or is_head(study, series, self._settings.head_words)):
            return None
        counted = [self._compare_series(study, item, held) for item in series]
        shortages = tuple(shortage for _, shortage in counted if shortage is not None)
        return Compared(study, sum(count for count, _ in counted), shortages)

    def _compare_series(
        self, study: PacsStudy, series: PacsSeries, held: Mapping[str, int]
    ) -> tuple[int, Shortage | None]:
        """Give how many images a series has, and what is missing of them."""
        count, present = series.instance_count, held.get(series.series_instance_uid, 0)
        if count is not None and present >= count:
            return count, None
        there = self._instances(study, series)
        if not there:
            missing = (count or 0) - present
            return count or 0, Shortage(series.series_instance_uid, count or 0, missing) if missing > 0 else None
        lacking = tuple(sorted(there - self._ledger.held_instances(study.study_instance_uid)))
        shortage = Shortage(series.series_instance_uid, len(there), len(lacking), lacking) if lacking else None
        return len(there), shortage

    def _instances(self, study: PacsStudy, series: PacsSeries) -> frozenset[str]:
        """Ask which images a series has; empty: this PACS answers no questions about images, its count must do."""
        try:
            return self._pacs.instances(study.study_instance_uid, series.series_instance_uid)
        except PacsError as error:
            if error.status is None or series.instance_count is None:
                raise
            return frozenset()


def still_short(compared: Compared, ledger: Reconciliations) -> Compared:
    """Look at the ledger again."""
    uid = compared.study.study_instance_uid
    held, counts = ledger.held_instances(uid), ledger.held_counts(uid)
    shortages = []
    for item in compared.shortages:
        left = tuple(sop for sop in item.sop_instance_uids if sop not in held)
        missing = len(left) if item.sop_instance_uids else item.expected - counts.get(item.series_instance_uid, 0)
        if missing > 0:
            shortages.append(replace(item, missing=missing, sop_instance_uids=left))
    return replace(compared, shortages=tuple(shortages))


def default_period(settings: ReconcileSettings, now: datetime, latest: Coverage | None = None) -> Period:
    """Give the days to ask for.

    Args:
        settings: how many days, and how long after midnight yesterday counts.
        now: in the time zone of the PACS.
        latest: the last comparison: what it left open, and what came since, is looked at as well.
    """
    today = now.date()
    first = min(today - timedelta(days=settings.days - 1),
                (now - timedelta(minutes=settings.after_midnight_minutes)).date())  # fmt: skip
    if latest is not None:
        is_open = latest.error or any(gap.state is not GapState.GIVEN_UP for gap in latest.gaps)
        since = date.fromisoformat(latest.first_day if is_open else latest.last_day)
        first = min(first, max(since, today - timedelta(days=CATCH_UP_DAYS)))
    return Period(first, today)


def is_head(study: PacsStudy, series: Sequence[PacsSeries], words: Sequence[str]) -> bool:
    """Whether a study is one of a head by what it is called; one that is called nothing may be one."""
    called = " ".join((study.description, *(f"{item.description} {item.body_part}" for item in series))).upper()
    return not called.strip() or any(word.upper() in called for word in words)


def wanted_of(short: Compared, *, held: Mapping[str, int]) -> list[Wanted]:
    """Give the fewest requests that bring what is missing, and little else."""
    uid = short.study.study_instance_uid
    if not held:
        return [Wanted(uid)]
    return [
        Wanted(uid, item.series_instance_uid, item.sop_instance_uids if item.missing < item.expected else ())
        for item in short.shortages
    ]
