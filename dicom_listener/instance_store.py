"""Where instances lie on disk, and how they get there: whole or not at all.

    incoming/                     temporary files; nothing here is an instance
    instances/ab/cdef.../NAME     ab/cdef...: SHA-256 of the Study Instance UID
    quarantine/                   data that could not be taken as an instance

NAME holds hashes of the SOP Instance UID and of the data set, so that other content under a known UID never
overwrites anything, and no text from outside ever becomes part of a path.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from dicom_listener.disk import Bytes, Disk
from dicom_listener.file_buffer import FileBuffers

INCOMING = Path("incoming")
INSTANCES = Path("instances")
QUARANTINE = Path("quarantine")


def instance_path(study_instance_uid: str, sop_instance_uid: str, blake3: str) -> Path:
    """Give an instance's place below the storage folder."""
    study = hashlib.sha256(study_instance_uid.encode()).hexdigest()
    sop = hashlib.sha256(sop_instance_uid.encode()).hexdigest()
    return Path(f"{INSTANCES}/{study[:2]}/{study[2:34]}/{sop[:32]}-{blake3[:16]}.dcm")


def quarantine_path(blake3: str) -> Path:
    """Give the place, below the storage folder, of data that is no instance."""
    return QUARANTINE / f"{blake3[:32]}.bin"


class InstanceStore:
    """The storage folder of one listener.

    Args:
        folder: on a local disk; `incoming/` must be on the same file system as the rest, for renames.
        disk: the file operations.

    Attributes:
        buffers: memory in which files are put together.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self.buffers = FileBuffers()
        self._disk = disk
        self._incoming = folder / INCOMING
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            OSError: the storage folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in (INCOMING, INSTANCES, QUARANTINE):
            self._disk.make_folder(self.folder / part)
        self._disk.sync_folder(self.folder)

    def keep(self, content: Bytes, path: Path) -> None:
        """Write a file under its final name; `sync_names` makes the name durable.

        Raises:
            OSError: nothing is left of it.
        """
        temporary = self._temporary()
        try:
            self._disk.write(temporary, content)
        except OSError:
            self._disk.remove(temporary)
            raise
        self._name(temporary, path)

    def open_spill(self) -> tuple[Path, BinaryIO]:
        """Open a temporary file for a data set that is too large for memory; `keep_spilled` or `remove` it."""
        temporary = self._temporary()
        return temporary, self._disk.open(temporary)

    def keep_spilled(self, temporary: Path, path: Path) -> None:
        """Put a temporary file under its final name; `sync_names` makes the name durable.

        Raises:
            OSError: nothing is left of it.
        """
        try:
            self._disk.sync_file(temporary)
        except OSError:
            self._disk.remove(temporary)
            raise
        self._name(temporary, path)

    def remove(self, temporary: Path) -> None:
        """Remove a temporary file."""
        self._disk.remove(temporary)

    def sync_names(self, paths: Iterable[Path]) -> None:
        """Wait until the names of these files are on the disk: once a folder, however many files."""
        for folder in {(self.folder / path).parent for path in paths}:
            self._disk.sync_folder(folder)

    def quarantine(self, content: Bytes, blake3: str) -> Path:
        """Keep data that is no instance, once for the same content; give its path below the storage folder."""
        path = quarantine_path(blake3)
        if not (self.folder / path).exists():
            self.keep(content, path)
            self.sync_names([path])
        return path

    def quarantine_spilled(self, temporary: Path, blake3: str) -> Path:
        """Keep a temporary file that is no instance; give its path below the storage folder."""
        path = quarantine_path(blake3)
        self.keep_spilled(temporary, path)
        self.sync_names([path])
        return path

    def free_bytes(self) -> int:
        """Give how much may still be written."""
        return self._disk.free_bytes(self.folder)

    def _temporary(self) -> Path:
        return self._incoming / f"{os.getpid()}-{next(self._numbers)}.part"

    def _name(self, temporary: Path, path: Path) -> None:
        target = self.folder / path
        try:
            try:
                # rename last: a half-written file must never look like an instance
                self._disk.rename(temporary, target)
            except FileNotFoundError:  # the study's first image
                self._make_folders(path.parent)
                self._disk.rename(temporary, target)
        except OSError:
            self._disk.remove(temporary)
            raise

    def _make_folders(self, folder: Path) -> None:
        """Make missing folders one by one, each durable in its parent before anything is put into it."""
        with self._lock:
            for part in [*reversed(folder.parents[:-1]), folder]:
                if self._disk.make_folder(self.folder / part):
                    self._disk.sync_folder((self.folder / part).parent)
