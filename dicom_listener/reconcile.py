"""Compares the ledger with what the PACS has, and fetches what is missing.

Only CT series count: our own results, once archived, must not look like images that were missed. What stays missing for
a while is fetched through the listener's own port; what the PACS claims of its sending is not believed, the ledger is
looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from dicom_listener.pacs import Pacs, PacsError
from dicom_listener.pacs_comparison import Compared, Comparison, Period, still_short, wanted_of
from dicom_listener.peer import Peer, PeerUnreachable, own_port
from dicom_listener.retrieving import Getter, Mover, Retriever, Unfetched, Wanted
from dicom_listener.sending import verify
from dicom_listener.tls import pacs_tls
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage, Gap, GapState, Reconciliations
from triage.settings import ReconcileSettings, Settings

log = structlog.get_logger()

LOOK_EVERY_S = 0.5  # for fetched images


class Reconciler:
    """Makes comparisons.

    Args:
        settings: of reconcile and listener.
        ledger: the ledger, also written by a running listener.
        clock: seconds since the epoch.
        sleep: waits for seconds.

    Raises:
        ConfigError: the files of TLS cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings = settings.reconcile
        # what is handed on to it comes from the PACS, and is treated as such
        self._listener = own_port(settings, settings.reconcile.pacs_ae_title)
        self._ledger = Reconciliations(ledger)
        self._retriever = _retriever(settings.reconcile, self._listener)
        self._clock = clock
        self._sleep = sleep

    def latest(self) -> Coverage | None:
        """Give the last comparison that was made."""
        return self._ledger.latest()

    def run(self, period: Period) -> Coverage:
        """Compare, fetch, and record the result; whatever the PACS does, there is a result.

        Raises:
            StoreError: the ledger cannot be read or written.
        """
        started_at = self._clock()
        tries = self._tries()
        compared, error = self._compare(period)
        short = [item for item in compared if item.shortages]
        if short and self._retriever is not None:
            self._sleep(self._settings.confirm_after_s)
        gaps, fetched = self._close_gaps(short, tries)
        coverage = _coverage(compared, gaps, period, fetched=fetched, started_at=started_at, ended_at=self._clock())
        coverage = replace(coverage, error=error)
        self._ledger.record(coverage)
        log.info("reconciled", studies=coverage.studies_expected, expected=coverage.instances_expected,
                 present=coverage.instances_present, fetched=fetched,
                 outcome="failed" if error else "done")  # fmt: skip
        return coverage

    def _compare(self, period: Period) -> tuple[list[Compared], str]:
        """Compare as far as the PACS answers; give also what stopped it."""
        compared: list[Compared] = []
        try:
            with Pacs(_pacs_peer(self._settings), timeout_s=self._settings.timeout_s) as pacs:
                compared.extend(Comparison(pacs, self._ledger, self._settings).studies(period))
        except (PacsError, PeerUnreachable) as failure:
            return compared, str(failure)
        return compared, ""

    def _tries(self) -> dict[str, Gap]:
        """Give what the last comparison left open."""
        latest = self._ledger.latest()
        return {gap.study_instance_uid: gap for gap in latest.gaps} if latest else {}

    def _close_gaps(self, short: Sequence[Compared], tries: Mapping[str, Gap]) -> tuple[list[Gap], int]:
        """Fetch what is still missing; give what stays open, and how many images have come."""
        gaps, fetched = [], 0
        for compared in short:
            now = still_short(compared, self._ledger)
            if not now.shortages:
                continue
            gap = self._close(now, tries.get(now.study.study_instance_uid))
            fetched += (gap.present if gap else now.expected) - now.present
            gaps += [gap] if gap else []
        return gaps, fetched

    def _close(self, short: Compared, before: Gap | None) -> Gap | None:
        """Fetch what is missing of one study; None: it is whole now."""
        attempts = before.attempts if before and before.expected == short.expected else 0
        if self._is_arriving(short):
            return _gap(short, GapState.ARRIVING, attempts)
        if self._retriever is None:
            return _gap(short, GapState.MISSING, attempts)
        if attempts >= self._settings.max_attempts:
            return _gap(short, GapState.GIVEN_UP, attempts, before.detail if before else "")
        try:
            detail = self._fetch(short, self._retriever)
        except PeerUnreachable as failure:  # says nothing of the study: no attempt is used up
            return _gap(still_short(short, self._ledger), GapState.FETCH_FAILED, attempts, str(failure))
        left = self._arrived(short)
        return _gap(left, GapState.FETCH_FAILED, attempts + 1, detail) if left.shortages else None

    def _is_arriving(self, short: Compared) -> bool:
        last_image_at = self._ledger.last_image_at(short.study.study_instance_uid)
        return last_image_at is not None and self._clock() - last_image_at < self._settings.confirm_after_s

    def _fetch(self, short: Compared, retriever: Retriever) -> str:
        """Let the PACS send what is missing; give what went wrong.

        Raises:
            PeerUnreachable: the PACS or our own listener.
        """
        try:
            verify(self._listener, timeout_s=self._settings.timeout_s)
        except PeerUnreachable as failure:
            said = f"Our own listener is needed for that, but {failure} Start it with `ich-triage listen`."
            raise PeerUnreachable(said) from failure
        failures = []
        for wanted in wanted_of(short, held=self._ledger.held_counts(short.study.study_instance_uid)):
            try:
                _fetch_or_whole_series(wanted, retriever)
            except Unfetched as failure:
                failures.append(failure.detail)
        return "; ".join(dict.fromkeys(failures))

    def _arrived(self, short: Compared) -> Compared:
        """Wait for fetched images, as long as more of them come: some PACS answer before they have sent."""
        left = still_short(short, self._ledger)
        deadline = self._clock() + self._settings.fetch_wait_s
        while left.shortages and self._clock() < deadline:
            self._sleep(LOOK_EVERY_S)
            before, left = left, still_short(left, self._ledger)
            if left.present > before.present:
                deadline = self._clock() + self._settings.fetch_wait_s
        return left


def _fetch_or_whole_series(wanted: Wanted, retriever: Retriever) -> None:
    """Fetch; where the PACS sends no single images, the whole series again: those known already do no harm."""
    try:
        retriever.fetch(wanted)
    except Unfetched:
        if not wanted.sop_instance_uids:
            raise
        retriever.fetch(replace(wanted, sop_instance_uids=()))


def _coverage(
    compared: Sequence[Compared], gaps: Sequence[Gap], period: Period, *, fetched: int, started_at: float,
    ended_at: float,
) -> Coverage:  # fmt: skip
    expected = sum(item.expected for item in compared)
    return Coverage(
        started_at=started_at,
        ended_at=ended_at,
        first_day=period.first_day.isoformat(),
        last_day=period.last_day.isoformat(),
        studies_expected=len(compared),
        studies_complete=len(compared) - len(gaps),
        instances_expected=expected,
        instances_present=expected - sum(gap.expected - gap.present for gap in gaps),
        instances_fetched=fetched,
        gaps=tuple(gaps),
    )


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
    return Peer(
        settings.pacs_host,
        settings.pacs_port,
        settings.pacs_ae_title,
        settings.ae_title,
        pacs_tls(settings),
        settings.username.encode(),
        settings.passcode.get_secret_value().encode() if settings.passcode is not None else b"",
    )
