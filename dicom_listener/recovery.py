"""What a start does after whatever ended the last listener: clear leftovers, register orphans."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from dicom_listener.header import read_header
from dicom_listener.instance_store import INCOMING, INSTANCES, instance_path
from dicom_listener.instances import instance_from
from dicom_listener.part10 import split_file
from triage.errors import UnreadableInstance
from triage.ledger.intake import Intake, Quarantined, Received

ORPHAN_STATUS = 0xC000  # what the sender of a file that does not parse would be answered
BATCH = 256  # files looked up, or registered, in one go
ALIVE_MARK = Path("listener.alive")  # its modification time: when a listener was last known to run
ALIVE_SLACK_S = 300.0  # folders changed up to this long before the mark are looked into as well


@dataclass(frozen=True)
class Recovered:
    """What a start found."""

    leftovers_removed: int = 0
    orphans_registered: int = 0
    orphans_quarantined: int = 0


def recover(folder: Path, intake: Intake, *, now: float) -> Recovered:
    """Bring disk and ledger together, before the port opens.

    A file without row is from a listener that was killed between rename and commit: its sender got no Success, but
    the image is whole, so it is registered. Only folders changed since a listener was last known to run are searched.

    Args:
        folder: the storage folder; this process must be the only listener on it.
        intake: the ledger.
        now: seconds since the epoch.

    Raises:
        OSError: the folder cannot be read or written.
        StoreError: the ledger takes no rows.
    """
    leftovers = _clear_incoming(folder, intake)
    registered = quarantined = 0
    for batch in _batches(_recent_files(folder)):
        known = intake.known_paths(batch)
        for path in batch:
            if path in known:
                continue
            if _register(folder, path, intake, now=now):
                registered += 1
            else:
                quarantined += 1
    mark_alive(folder)
    return Recovered(leftovers, registered, quarantined)


def mark_alive(folder: Path) -> None:
    """Note on disk that a listener runs now."""
    (folder / ALIVE_MARK).touch()


def _clear_incoming(folder: Path, intake: Intake) -> int:
    """Remove what was being written, but for a file whose row was committed while a power cut took its final name."""
    removed = 0
    for leftover in (folder / INCOMING).iterdir():
        path = _place_of(leftover)
        if path is not None and intake.known_paths([path]):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            leftover.rename(folder / path)
        else:
            leftover.unlink()
            removed += 1
    return removed


def _place_of(leftover: Path) -> Path | None:
    """Give where a file of incoming/ belongs by its content; None: it is no whole instance."""
    try:
        meta, data = split_file(leftover.read_bytes())
        header = read_header(data, meta.transfer_syntax_uid)
    except UnreadableInstance:
        return None
    return instance_path(header.study_instance_uid, header.sop_instance_uid, blake3(data).hexdigest())


def _recent_files(folder: Path) -> Iterator[Path]:
    """Give the files in study folders that changed since the last listener was known to run."""
    mark = folder / ALIVE_MARK
    since = mark.stat().st_mtime - ALIVE_SLACK_S if mark.exists() else 0.0
    for fan in _folders(folder / INSTANCES):
        for study in _folders(fan):
            if study.stat().st_mtime >= since:
                yield from (Path(entry.path).relative_to(folder) for entry in os.scandir(study))


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        yield from (Path(entry.path) for entry in entries if entry.is_dir())


def _batches(paths: Iterator[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    for path in paths:
        batch.append(path)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _register(folder: Path, path: Path, intake: Intake, *, now: float) -> bool:
    """Register one file without row; False: it is no whole instance and was put into quarantine."""
    content = (folder / path).read_bytes()
    received_at = (folder / path).stat().st_mtime
    try:
        received = _received(path, content, received_at=received_at)
    except UnreadableInstance as error:
        _quarantine(folder, path, intake, str(error), len(content), now=now)
        return False
    intake.register([received], now=now)
    return True


def _received(path: Path, content: bytes, *, received_at: float) -> Received:
    meta, data = split_file(content)
    header = read_header(data, meta.transfer_syntax_uid)
    content_hash = blake3(data).hexdigest()
    if instance_path(header.study_instance_uid, header.sop_instance_uid, content_hash) != path:
        raise UnreadableInstance("the file's content is not what its name says")
    instance = instance_from(
        header,
        path=path,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        size_bytes=len(data),
        blake3=content_hash,
        received_at=received_at,
        calling_ae_title=meta.source_ae_title,
        called_ae_title="",
    )
    return Received(instance, header.patient)


def _quarantine(folder: Path, path: Path, intake: Intake, reason: str, size_bytes: int, *, now: float) -> None:
    target = Path("quarantine") / path.name
    (folder / path).rename(folder / target)
    intake.quarantine(Quarantined(target, size_bytes, now, "", ORPHAN_STATUS, f"found at start: {reason}"))
