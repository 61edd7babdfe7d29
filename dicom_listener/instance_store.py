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
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_listener.disk import Bytes, Disk, Writing
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


@dataclass(frozen=True, slots=True)
class Begun:
    """A temporary file that is being written."""

    temporary: str
    writing: Writing


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

    def begin(self, content: Bytes) -> Begun:
        """Begin to write a file; `keep` or `abandon` it, and leave `content` alone until then.

        Raises:
            OSError: it cannot be written, and nothing is left of it.
        """
        temporary = self._temporary()
        try:
            return Begun(temporary, self._disk.begin(temporary, content))
        except OSError:
            self._disk.remove(temporary)
            raise

    def keep(self, begun: Begun, path: Path) -> None:
        """Wait until a file that was begun is on the disk under its final name.

        Raises:
            OSError: it was not written, or not given its name, and nothing is left of it; or the name is not durable.
        """
        try:
            self._disk.finish(begun.writing)
        except OSError:
            self._disk.remove(begun.temporary)
            raise
        self._name(begun.temporary, path)

    def abandon(self, begun: Begun) -> None:
        """Leave nothing of a file that was begun."""
        self._disk.abandon(begun.writing)
        self._disk.remove(begun.temporary)

    def open_spill(self) -> tuple[str, BinaryIO]:
        """Open a temporary file for a data set that is too large for memory; `keep_spilled` or `remove` it."""
        temporary = self._temporary()
        return temporary, self._disk.open(temporary)

    def keep_spilled(self, temporary: str, path: Path) -> None:
        """Wait until a temporary file is on the disk under its final name.

        Raises:
            OSError: as by `keep`.
        """
        try:
            self._disk.sync_file(temporary)
        except OSError:
            self._disk.remove(temporary)
            raise
        self._name(temporary, path)

    def remove(self, temporary: str) -> None:
        """Remove a temporary file."""
        self._disk.remove(temporary)

    def quarantine(self, content: Bytes, blake3: str) -> Path:
        """Keep data that is no instance, once for the same content; give its path below the storage folder."""
        path = quarantine_path(blake3)
        if not (self.folder / path).exists():
            self.keep(self.begin(content), path)
        return path

    def quarantine_spilled(self, temporary: str, blake3: str) -> Path:
        """Keep a temporary file that is no instance; give its path below the storage folder."""
        path = quarantine_path(blake3)
        self.keep_spilled(temporary, path)
        return path

    def free_bytes(self) -> int:
        """Give how much may still be written."""
        return self._disk.free_bytes(self.folder)

    def _temporary(self) -> str:
        return f"{self._incoming}/{os.getpid()}-{next(self._numbers)}.part"

    def _name(self, temporary: str, path: Path) -> None:
        target = f"{self.folder}/{path}"  # text, as joining Paths costs more than renaming
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
        # a file that has its name stays: the same content may have been kept, and acknowledged, before
        self._disk.sync_folder(target.rpartition("/")[0])

    def _make_folders(self, folder: Path) -> None:
        """Make missing folders one by one, each durable in its parent before anything is put into it."""
        with self._lock:
            for part in [*reversed(folder.parents[:-1]), folder]:
                if self._disk.make_folder(self.folder / part):
                    self._disk.sync_folder((self.folder / part).parent)
