"""Whether what the ledger names lies on the disk, whole: asked at start and once a day, and by `ich-triage storage`."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from blake3 import blake3

from dicom_listener.part10 import split_file
from triage.errors import StoreError, UnreadableInstance
from triage.ledger.kept_files import KeptFile, kept_files

log = structlog.get_logger()

BEFORE_BLAKE3 = "sha256:"  # in front of a hash in the ledger
DAY_S = 86400.0
RETRY_S = 60.0  # where ledger or disk gave no answer
REST = 4.0  # times what a thousand files took: receiving goes first


class Inventory:
    """Counts the rows whose file is gone, from a thread of its own.

    Args:
        folder: the storage folder.
        ledger_path: the ledger's file.
    """

    def __init__(self, folder: Path, ledger_path: Path) -> None:
        self._folder = folder
        self._ledger_path = ledger_path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inventory", daemon=True)
        self.missing: int | None = None  # None: not counted yet

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def stop(self) -> None:
        """End, also in the middle of a count."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._count()
                wait_s = DAY_S
            except (StoreError, OSError) as error:
                log.error("inventory_waits", error_type=type(error.__cause__ or error).__name__)
                wait_s = RETRY_S
            self._stopping.wait(wait_s)

    def _count(self) -> None:
        missing = files = 0
        began_at = time.monotonic()
        for batch in kept_files(self._ledger_path):
            missing += sum(is_missing(self._folder, file) for file in batch)
            files += len(batch)
            if self._stopping.wait(REST * (time.monotonic() - began_at)):
                return
            began_at = time.monotonic()
        self.missing = missing
        if missing:
            log.error("files_missing", count=missing, instances=files)


def is_missing(folder: Path, file: KeptFile) -> bool:
    """Whether a file is gone from the storage folder."""
    return not (folder / file.path).exists()


def missing_files(folder: Path, ledger_path: Path) -> Iterator[KeptFile]:
    """Give the files that rows name and the disk has not.

    Raises:
        StoreError: the ledger cannot be read.
    """
    for batch in kept_files(ledger_path):
        yield from (file for file in batch if is_missing(folder, file))


def fault_of(folder: Path, file: KeptFile) -> str:
    """Read a file whole and say what is wrong with it; empty: nothing."""
    try:
        _, data = split_file((folder / file.path).read_bytes())
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except UnreadableInstance:
        return "damaged: no DICOM file"
    if len(data) != file.size_bytes:
        return f"damaged: {len(data)} bytes instead of {file.size_bytes}"
    return "" if _is_content(data, file.blake3) else "damaged: other content"


def _is_content(data: memoryview, digest: str) -> bool:
    """Whether data have the hash that the ledger names; rows of before BLAKE3 say so."""
    if digest.startswith(BEFORE_BLAKE3):
        return digest == BEFORE_BLAKE3 + hashlib.sha256(data).hexdigest()
    return digest == blake3(data).hexdigest()
