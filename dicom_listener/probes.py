"""What monitoring asks beyond counters: whether an image could be taken now, and what ledger and PACS say."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from pathlib import Path
from typing import TypeVar

from dicom_listener.disk import Disk
from dicom_listener.instance_store import INCOMING
from dicom_listener.metrics import Metrics
from dicom_listener.tls import EXPIRES_SOON_DAYS, days_left
from triage.errors import ConfigError, StoreError
from triage.ledger import Ledger
from triage.ledger.intake import Intake
from triage.ledger.reconciliation import Reconciliations
from triage.settings import ListenerSettings

PATIENCE_S = 5.0  # for disk and ledger to answer; a probe that hangs says nothing
FRESH_S = 2.0  # one reading of the ledger serves all the gauges of a scrape
UNKNOWN = math.nan

GAUGES = {
    "quarantined_objects": "data kept that could not be taken as instances",
    "conflicting_instances": "images under a known UID with other content",
    "reconciled_at_seconds": "when the PACS was last compared with, since the epoch",
    "reconciled_expected_instances": "images that the PACS had then",
    "reconciled_present_instances": "of these, images that are here",
    "reconciled_incomplete_studies": "studies with images missing then",
    "reconciliation_failed": "1: the PACS could not be asked to the end",
}

T = TypeVar("T")


class Probes:
    """Asks disk and ledger from one thread, with one connection, however many requests come.

    Args:
        folder: the storage folder.
        disk: the file operations.
        ledger: the ledger.
        settings: of the port.
        certificates: to be told how long they last, by the name of their setting.
    """

    def __init__(
        self, folder: Path, disk: Disk, ledger: Ledger, settings: ListenerSettings, certificates: Mapping[str, Path]
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._ledger = ledger
        self._settings = settings
        self._certificates = certificates
        self._asker = ThreadPoolExecutor(1, thread_name_prefix="probes")
        self._read: Mapping[str, float] = {}
        self._read_at = -math.inf

    def stop(self) -> None:
        """End the thread; a probe that hangs is not waited for."""
        self._asker.shutdown(wait=False, cancel_futures=True)

    def register(self, metrics: Metrics) -> None:
        """Let the gauges be asked for; one that nothing is known of is not a number."""
        for name, text in GAUGES.items():
            metrics.gauge(f"ich_listener_{name}", text, lambda name=name: self._gauge(name))  # type: ignore[misc]
        for setting, path in self._certificates.items():
            text = "days until a TLS certificate expires"
            metrics.gauge("ich_listener_certificate_days_left", text, partial(_days_left, path), setting=setting)

    def expiring(self) -> list[str]:
        """Say which certificates expire soon, or have."""
        days = {setting: _days_left(path) for setting, path in self._certificates.items()}
        return [f"{setting}: the certificate expires in {left:.0f} days" if left >= 0 else f"{setting}: it has expired"
                for setting, left in days.items() if left < EXPIRES_SOON_DAYS]  # fmt: skip

    def not_ready(self) -> list[str]:
        """Try what each image needs; give what is wrong, in words."""
        faults = self._ask(self._try)
        return [f"disk or ledger gave no answer within {PATIENCE_S:g} s"] if faults is None else faults

    def _try(self) -> list[str]:
        """Write, sync and remove a file, and take the ledger's write lock."""
        faults = []
        try:
            free, least = self._disk.free_bytes(self._folder), self._settings.min_free_bytes
            if free < least:
                faults.append(f"{free} bytes free, fewer than listener.min_free_bytes ({least})")
            probe = self._folder / INCOMING / f"{os.getpid()}-probe.part"
            try:
                self._disk.write(probe, b"ready?")
            finally:
                self._disk.remove(probe)
        except OSError as error:
            faults.append(f"the disk takes no data: {error.strerror}")
        try:
            with self._ledger.transaction():
                pass
        except StoreError:
            faults.append("the ledger takes no rows")
        return faults

    def _gauge(self, name: str) -> float:
        values = self._ask(self._values)
        return UNKNOWN if values is None else values.get(name, UNKNOWN)

    def _values(self) -> Mapping[str, float]:
        if time.monotonic() - self._read_at > FRESH_S:
            self._read = _values_of(self._ledger)
            self._read_at = time.monotonic()
        return self._read

    def _ask(self, probe: Callable[[], T]) -> T | None:
        """Ask in the one thread; None: no answer in time."""
        asked = self._asker.submit(probe)
        try:
            return asked.result(PATIENCE_S)
        except FutureTimeout:
            asked.cancel()  # a disk that hangs must not find a queue of questions when it comes back
            return None


def _days_left(certificate: Path) -> float:
    try:
        return days_left(certificate)
    except ConfigError:
        return UNKNOWN


def _values_of(ledger: Ledger) -> Mapping[str, float]:
    latest = Reconciliations(ledger).latest()
    quarantined, conflicting = Intake(ledger).kept_apart()
    values: dict[str, float] = {"quarantined_objects": quarantined, "conflicting_instances": conflicting}
    if latest is not None:
        values |= {
            "reconciled_at_seconds": latest.ended_at,
            "reconciled_expected_instances": latest.instances_expected,
            "reconciled_present_instances": latest.instances_present,
            "reconciled_incomplete_studies": len(latest.gaps),
            "reconciliation_failed": float(bool(latest.error)),
        }
    return values
