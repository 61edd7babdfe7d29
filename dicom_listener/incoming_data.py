"""A data set while it comes in: in memory as long as it is of a usual size, then on disk, and never without bound."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from dicom_listener.disk import Bytes
from dicom_listener.instance_store import InstanceStore

SPILL_BYTES = 16 * 1024 * 1024  # larger data sets go to disk as they come; a CT slice has 0.5 MB
HEAD_BYTES = 4 * 1024 * 1024  # of a spilled data set, kept in memory to read its header


class TooLarge(Exception):
    """The data set exceeds the limit on one object."""


class IncomingData:
    """Collects one data set.

    Args:
        store: where a large one is spilled to.
        file_header: what a spilled file begins with, see `part10.file_header`.
        limit_bytes: of one data set.
    """

    def __init__(self, store: InstanceStore, file_header: bytes, *, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._hash = blake3()
        self.file_header = file_header
        self.size = 0
        self.spilled: Path | None = None

    def append(self, part: Bytes) -> None:
        """Add the next part.

        Raises:
            TooLarge: it exceeds the limit.
            OSError: it cannot be spilled; `discard` it.
        """
        self.size += len(part)
        if self.size > self._limit_bytes:
            raise TooLarge
        self._hash.update(part)
        if self._file is None:
            self._memory += part
            if self.size > SPILL_BYTES:
                self._spill()
            return
        self._file.write(part)

    @property
    def head(self) -> Bytes:
        """The data set, or the beginning of a spilled one."""
        return self._memory

    def blake3(self) -> str:
        """Give the hash of the data set, hex."""
        return self._hash.hexdigest()

    def keep(self, path: Path) -> None:
        """Put the file in its place, whole and synced.

        Raises:
            OSError: nothing is left of it.
        """
        if self._file is None or self.spilled is None:
            self._store.keep([self.file_header, self._memory], path)
            return
        self._file.close()
        self._store.keep_spilled(self.spilled, path)
        self.spilled = None

    def quarantine(self) -> Path:
        """Put the data set where an administrator finds it, a spilled one behind its file header; give the path."""
        if self._file is None or self.spilled is None:
            return self._store.quarantine([self._memory], self.blake3())
        self._file.close()
        path = self._store.quarantine_spilled(self.spilled, self.blake3())
        self.spilled = None
        return path

    def discard(self) -> None:
        """Leave nothing behind; does no harm after `keep`."""
        if self._file is not None:
            self._file.close()
        if self.spilled is not None:
            self._store.remove(self.spilled)
            self.spilled = None

    def _spill(self) -> None:
        self.spilled, self._file = self._store.open_spill()
        self._file.write(self.file_header)
        self._file.write(self._memory)
        del self._memory[HEAD_BYTES:]
