"""Compares the ledger with what the PACS has, and fetches what is missing.

The PACS is asked for the head CTs of a period by C-FIND, the ledger for the images of each. Only CT series count: our own
results, once archived, must not look like images that were missed. What stays missing for a while is fetched through the
listener's own port; what the PACS claims of its sending is not believed, the ledger is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import structlog

from dicom_listener.pacs import Pacs, PacsError, PacsSeries, PacsStudy
from dicom_listener.retrieving import Getter, Mover, Retriever, Unfetched, Wanted
from dicom_listener.sending import Peer, PeerUnreachable, verify
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage, Gap, GapState, Reconciliations
from triage.settings import ListenerSettings, ReconcileSettings, Settings

log = structlog.get_logger()

CT = "CT"
LOOK_EVERY_S = 0.5  # for fetched images
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - how to reach ourselves there


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


class Reconciler:
    """Makes comparisons.

    Args:
        settings: of reconcile and listener.
        ledger: the ledger, also written by a running listener.
        clock: seconds since the epoch.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings.reconcile
        self._listener = _listener_peer(settings.listener, settings.reconcile)
        self._ledger = Reconciliations(ledger)
        self._retriever = _retriever(settings.reconcile, self._listener)
        self._clock = clock
        self._sleep = sleep

    def run(self, period: Period) -> Coverage:
        """Compare, fetch, and record the result; whatever the PACS does, there is a result.

        Raises:
            StoreError: the ledger cannot be read or written.
        """
        started_at = self._clock()
        tries = self._tries()
        compared: list[Compared] = []
        gaps: list[Gap] = []
        fetched, error = 0, ""
        try:
            with self._pacs() as pacs:
                compared = self._compare_all(pacs, period)
                short = [item for item in compared if item.shortages]
            if short and self._settings.confirm_after_s:
                self._sleep(self._settings.confirm_after_s)
            gaps, fetched = self._close_gaps(short, tries)
        except (PacsError, PeerUnreachable) as failure:
            error = str(failure)
        coverage = self._coverage(compared, gaps, period, started_at, fetched, error)
        self._ledger.record(coverage)
        log.info("reconciled", studies=coverage.studies_expected, expected=coverage.instances_expected,
                 present=coverage.instances_present, fetched=fetched, outcome="failed" if error else "done")  # fmt: skip
        return coverage

    def _pacs(self) -> Pacs:
        return Pacs(_pacs_peer(self._settings), timeout_s=self._settings.timeout_s)

    def _compare_all(self, pacs: Pacs, period: Period) -> list[Compared]:
        compared = []
        modality = CT if self._settings.match_modality else ""
        for day in period.days():
            for study in pacs.studies(day, modality=modality):
                if CT in study.modalities or not study.modalities:
                    compared.append(self._compare(pacs, study))
        return [item for item in compared if item is not None]

    def _compare(self, pacs: Pacs, study: PacsStudy) -> Compared | None:
        """Compare one study; None: it is no head CT."""
        series = [item for item in pacs.series(study.study_instance_uid) if item.modality in (CT, "")]
        held = self._ledger.held_counts(study.study_instance_uid)
        if not series or not (held or is_head(study, series, self._settings.head_words)):
            return None
        expected, shortages = 0, []
        for item in series:
            count, shortage = self._compare_series(pacs, study, item, held)
            expected += count
            shortages += [shortage] if shortage else []
        return Compared(study, expected, tuple(shortages))

    def _compare_series(
        self, pacs: Pacs, study: PacsStudy, series: PacsSeries, held: Mapping[str, int]
    ) -> tuple[int, Shortage | None]:
        """Give how many images a series has, and what is missing of them."""
        count, present = series.instance_count, held.get(series.series_instance_uid, 0)
        if count is not None and present >= count:
            return count, None
        try:
            there = pacs.instances(study.study_instance_uid, series.series_instance_uid)
        except PacsError as error:
            if error.status is None or count is None:
                raise
            there = frozenset()  # this PACS answers no questions about images: its count must do
        if not there:
            missing = (count or 0) - present
            return count or 0, Shortage(series.series_instance_uid, count or 0, missing) if missing else None
        lacking = tuple(sorted(there - self._ledger.held_instances(study.study_instance_uid)))
        shortage = Shortage(series.series_instance_uid, len(there), len(lacking), lacking) if lacking else None
        return len(there), shortage

    def _tries(self) -> dict[str, Gap]:
        """Give what the last comparison left open."""
        latest = self._ledger.latest()
        return {gap.study_instance_uid: gap for gap in latest.gaps} if latest else {}

    def _close_gaps(self, short: Sequence[Compared], tries: Mapping[str, Gap]) -> tuple[list[Gap], int]:
        """Fetch what is still missing; give what stays open, and how many images have come."""
        gaps, fetched = [], 0
        for compared in short:
            now = self._still_short(compared)
            if not now.shortages:
                continue
            gap = self._fetch(now, tries.get(now.study.study_instance_uid))
            fetched += (gap.present if gap else now.expected) - now.present
            gaps += [gap] if gap else []
        return gaps, fetched

    def _still_short(self, compared: Compared) -> Compared:
        """Look at the ledger again."""
        uid = compared.study.study_instance_uid
        held, counts = self._ledger.held_instances(uid), self._ledger.held_counts(uid)
        shortages = []
        for item in compared.shortages:
            left = tuple(sop for sop in item.sop_instance_uids if sop not in held)
            missing = len(left) if item.sop_instance_uids else item.expected - counts.get(item.series_instance_uid, 0)
            if missing > 0:
                shortages.append(replace(item, missing=missing, sop_instance_uids=left))
        return replace(compared, shortages=tuple(shortages))

    def _fetch(self, short: Compared, before: Gap | None) -> Gap | None:
        """Fetch one study; None: it is whole now."""
        attempts = before.attempts if before and before.expected == short.expected else 0
        if self._is_arriving(short):
            return _gap(short, GapState.ARRIVING, attempts)
        if self._retriever is None:
            return _gap(short, GapState.MISSING, attempts)
        if attempts >= self._settings.max_attempts:
            return _gap(short, GapState.GIVEN_UP, attempts, before.detail if before else "")
        detail = self._ask(short)
        left = self._arrived(short)
        return _gap(left, GapState.FETCH_FAILED, attempts + 1, detail) if left.shortages else None

    def _ask(self, short: Compared) -> str:
        """Let the PACS send what is missing; give what went wrong."""
        try:
            verify(self._listener, timeout_s=self._settings.timeout_s)
        except PeerUnreachable:
            return "our own listener does not answer; start it with `ich-triage listen`"
        details = []
        for wanted in wanted_of(short, held=self._ledger.held_counts(short.study.study_instance_uid)):
            try:
                self._fetch_or_whole_series(wanted)
            except Unfetched as failure:
                details.append(failure.detail)
            except PeerUnreachable as failure:
                details.append(str(failure))
        return "; ".join(dict.fromkeys(details))

    def _fetch_or_whole_series(self, wanted: Wanted) -> None:
        """Fetch; where the PACS sends no single images, the whole series again: those known already do no harm."""
        if self._retriever is None:
            return
        try:
            self._retriever.fetch(wanted)
        except Unfetched:
            if not wanted.sop_instance_uids:
                raise
            self._retriever.fetch(replace(wanted, sop_instance_uids=()))

    def _arrived(self, short: Compared) -> Compared:
        """Wait for fetched images, as long as more of them come: some PACS answer before they have sent."""
        left = self._still_short(short)
        deadline = self._clock() + self._settings.fetch_wait_s
        while left.shortages and self._clock() < deadline:
            self._sleep(LOOK_EVERY_S)
            before, left = left, self._still_short(left)
            if left.present > before.present:
                deadline = self._clock() + self._settings.fetch_wait_s
        return left

    def _is_arriving(self, short: Compared) -> bool:
        last_image_at = self._ledger.last_image_at(short.study.study_instance_uid)
        return last_image_at is not None and self._clock() - last_image_at < self._settings.confirm_after_s

    def _coverage(
        self, compared: Sequence[Compared], gaps: Sequence[Gap], period: Period, started_at: float, fetched: int,
        error: str,
    ) -> Coverage:  # fmt: skip
        expected = sum(item.expected for item in compared)
        if error:  # not all was looked at: count what is known
            gaps = [_gap(item, GapState.MISSING, 0) for item in compared if item.shortages]
        return Coverage(
            started_at=started_at,
            ended_at=self._clock(),
            first_day=period.first_day.isoformat(),
            last_day=period.last_day.isoformat(),
            studies_expected=len(compared),
            studies_complete=len(compared) - len(gaps),
            instances_expected=expected,
            instances_present=expected - sum(gap.expected - gap.present for gap in gaps),
            instances_fetched=fetched,
            error=error,
            gaps=tuple(gaps),
        )


def default_period(settings: ReconcileSettings, now: datetime) -> Period:
    """Give the days to ask for at a time: today, and yesterday while its last studies may still come."""
    first = now - timedelta(days=settings.days - 1)
    earlier = now - timedelta(minutes=settings.after_midnight_minutes)
    return Period(min(first, earlier).date(), now.date())


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


def _gap(short: Compared, state: GapState, attempts: int, detail: str = "") -> Gap:
    study = short.study
    return Gap(study.study_instance_uid, study.study_date, short.expected, short.present, state, attempts, detail)


def _retriever(settings: ReconcileSettings, listener: Peer) -> Retriever | None:
    pacs = _pacs_peer(settings)
    if settings.retrieve == "move":
        return Mover(pacs, listener.called_ae_title, timeout_s=settings.timeout_s)
    if settings.retrieve == "get":
        return Getter(pacs, listener, timeout_s=settings.timeout_s)
    return None


def _pacs_peer(settings: ReconcileSettings) -> Peer:
    return Peer(settings.pacs_host, settings.pacs_port, settings.pacs_ae_title, settings.ae_title)


def _listener_peer(listener: ListenerSettings, settings: ReconcileSettings) -> Peer:
    """Give our own port; what is handed on to it comes from the PACS, and is treated as such."""
    host = ANY_HOST.get(listener.host, listener.host)
    return Peer(host, listener.port, listener.ae_title, settings.pacs_ae_title)
