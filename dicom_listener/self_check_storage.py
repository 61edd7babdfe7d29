"""The part of `ich-triage listen --check` on disk and ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from dicom_listener.checks import Check, Grade
from dicom_listener.disk import Disk
from dicom_listener.instance_store import INCOMING, INSTANCES, QUARANTINE
from dicom_listener.inventory import missing_files
from dicom_listener.quarantine import QuarantineRoom
from triage.errors import StoreError
from triage.ledger.inspection import inspect_ledger
from triage.settings import ListenerSettings, StorageSettings

GB = 1e9
SLOW_SYNC_S = 0.05  # three such waits an image make 7 images a second
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.", "9p", "ceph", "gluster", "lustre", "afs")


def storage_checks(storage: StorageSettings, settings: ListenerSettings, disk: Disk) -> Iterator[Check]:
    """Take a file the way of an image, and look at what disk it is."""
    folder = storage.folder
    try:
        took_s = _try_writing(folder, disk)
        free = disk.free_bytes(folder)
    except OSError as error:
        mend = f"storage.folder: a folder on a local disk that user {os.getuid()} may write"
        yield Check("storage", Grade.FAULT, f"{folder} cannot be written: {error.strerror}", mend)
        return
    yield _file_systems(folder)
    slow = took_s > SLOW_SYNC_S
    yield Check("durable write", Grade.DOUBTFUL if slow else Grade.GOOD,
                f"write, fsync, rename and fsync of the folder took {took_s * 1000:.1f} ms",
                "a faster disk: each image waits for it before it is acknowledged" if slow else "")  # fmt: skip
    low = free < settings.min_free_bytes
    yield Check("free disk", Grade.FAULT if low else Grade.GOOD,
                f"{free / GB:.1f} GB; images are refused below {settings.min_free_bytes / GB:.1f} GB",
                "make room, or lower listener.min_free_bytes" if low else "")  # fmt: skip


def _try_writing(folder: Path, disk: Disk) -> float:
    """Take a file the way of an image; give the seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in (INCOMING, INSTANCES, QUARANTINE):
        disk.make_folder(folder / part)
    temporary = folder / INCOMING / f"{os.getpid()}-check.part"
    final = folder / QUARANTINE / f"{os.getpid()}-check.tmp"
    began_at = time.perf_counter()
    try:
        disk.write(temporary, bytes(524288))
        disk.rename(temporary, final)
        disk.sync_folder(final.parent)
        return time.perf_counter() - began_at
    finally:
        disk.remove(temporary)
        disk.remove(final)


def _file_systems(folder: Path) -> Check:
    devices = {(folder / part).stat().st_dev for part in (INCOMING, INSTANCES, QUARANTINE)}
    if len(devices) > 1:
        mend = "put incoming/, instances/ and quarantine/ on one: a rename between two is no rename"
        return Check("storage", Grade.FAULT, f"{folder} spreads over {len(devices)} file systems", mend)
    kind = _file_system_of(folder.resolve())
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        mend = "storage.folder on a local disk: neither fsync nor the ledger's write-ahead log hold on a network share"
        return Check("storage", Grade.FAULT, f"{folder} is a network share ({kind})", mend)
    return Check("storage", Grade.GOOD, f"{folder.resolve()} on {kind or 'an unknown file system'}")


def _file_system_of(folder: Path) -> str:
    """Give the kind of the mount that a folder is on; empty where the system does not say."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    around = [(len(words[1]), words[2]) for words in mounts if folder.is_relative_to(words[1].replace("\\040", " "))]
    return max(around)[1] if around else ""


def ledger_checks(storage: StorageSettings) -> Iterator[Check]:
    """Open the ledger and take its write lock, without changing it."""
    path = storage.ledger_path
    if not path.exists():
        yield Check("ledger", Grade.GOOD, "none yet; the first start makes it")
        return
    try:
        found = inspect_ledger(path)
    except StoreError as error:
        yield Check("ledger", Grade.FAULT, str(error), f"let user {os.getuid()} write {path}, or restore a copy of it")
        return
    if found.newer:
        mend = "update this host: an older version must not write it"
        yield Check("ledger", Grade.FAULT, f"written by a newer version (steps {', '.join(found.newer)})", mend)
        return
    pending = f"; the next start applies {len(found.pending)} more" if found.pending else ""
    yield Check("ledger", Grade.GOOD,
                f"opens and takes writes; {found.steps} steps, {found.size_bytes / GB:.3f} GB{pending}")  # fmt: skip


def kept_checks(storage: StorageSettings, settings: ListenerSettings) -> Iterator[Check]:
    """Whether each image of the ledger has its file, and what is in quarantine."""
    if not storage.ledger_path.exists():
        return
    try:
        missing = sum(1 for _ in missing_files(storage.folder, storage.ledger_path))
        room = QuarantineRoom(storage.folder, max_bytes=settings.quarantine_max_bytes,
                              max_objects=settings.quarantine_max_objects)  # fmt: skip
        objects, size = room.kept()
    except (StoreError, OSError):
        return  # the checks of storage and ledger say so
    yield Check("images on disk", Grade.FAULT if missing else Grade.GOOD,
                f"{missing} of the ledger's have no file" if missing else "each of the ledger's has its file",
                "ich-triage storage verify, and send these studies again" if missing else "")  # fmt: skip
    if not objects:
        return
    found = (
        f"{objects} objects, {size / GB:.3f} GB; nothing more is kept beyond {settings.quarantine_max_bytes / GB:g} GB"
    )
    yield Check("quarantine", Grade.DOUBTFUL, found, "ich-triage storage quarantine says why, and removes them")
