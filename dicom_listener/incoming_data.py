"""A data set while it comes in: in memory as long as it is of a usual size, then on disk, and never without bound."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from dicom_listener.disk import Bytes
from dicom_listener.file_buffer import FileBuffer
from dicom_listener.instance_store import Begun, InstanceStore

SPILL_BYTES = 16 * 1024 * 1024  # larger data sets go to disk as they come; a CT slice has 0.5 MB
HEAD_BYTES = 4 * 1024 * 1024  # of a spilled data set, kept in memory to read its header


class TooLarge(Exception):
    """The data set exceeds the limit on one object."""


class IncomingData:
    """Collects one data set.

    Args:
        store: where a large one is spilled to.
        file_header: what the file begins with, see `part10.file_header`.
        limit_bytes: of one data set.
    """

    def __init__(self, store: InstanceStore, file_header: bytes, *, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._buffer: FileBuffer | None = store.buffers.take()
        self._buffer.append(file_header)
        self._data_start = len(file_header)
        self._begun: Begun | None = None
        self._file: BinaryIO | None = None
        # what stays in memory is hashed at its end, by one call: each hands over Python's lock
        self._spilled_hash: blake3 | None = None
        self.size = 0
        self.spilled: str | None = None

    def append(self, part: Bytes) -> None:
        """Add the next part.

        Raises:
            TooLarge: it exceeds the limit.
            OSError: it cannot be spilled; `discard` it.
        """
        self._check(len(part))
        if self._file is None:
            self._in_memory.append(part)
        else:
            self._file.write(part)
        self._added(part)

    def place(self, count: int) -> memoryview | None:
        """Give the memory of the next part, to be filled and then `placed`; None: on disk, where it is appended.

        Raises:
            TooLarge: it would exceed the limit.
        """
        self._check(count)
        return self._in_memory.place(count) if self._file is None else None

    def placed(self, count: int) -> None:
        """Take in a part that was filled into its place.

        Raises:
            OSError: it cannot be spilled; `discard` it.
        """
        self._added(self._in_memory.placed(count))

    @property
    def head(self) -> Bytes:
        """The data set, or the beginning of a spilled one."""
        return self._in_memory.content()[self._data_start :]

    def blake3(self) -> str:
        """Give the hash of the data set, hex."""
        whole = blake3(self.head) if self._spilled_hash is None else self._spilled_hash
        return whole.hexdigest()

    def begin_file(self) -> None:
        """Let the disk take the whole data set while the caller goes on, to `keep` or `discard` it.

        Raises:
            OSError: nothing is left of the file.
        """
        if self._file is None:  # a spilled one is there already
            self._begun = self._store.begin(self._in_memory.content())

    def keep(self, path: Path) -> None:
        """Put the file, once it was begun, in its place, whole and synced.

        Raises:
            OSError: nothing is left of it.
        """
        if self._begun is not None:
            begun, self._begun = self._begun, None
            self._store.keep(begun, path)
            return
        if self._file is None or self.spilled is None:
            raise ValueError("This data set has no file; begin_file comes first.")
        self._file.close()
        self._store.keep_spilled(self.spilled, path)
        self.spilled = None

    def quarantine(self, blake3: str) -> Path:
        """Put the data set, known by its hash, where an administrator finds it; give the path.

        A spilled one stands there behind its file header.
        """
        if self._file is None or self.spilled is None:
            return self._store.quarantine(self.head, blake3)
        self._file.close()
        path = self._store.quarantine_spilled(self.spilled, blake3)
        self.spilled = None
        return path

    def discard(self) -> None:
        """Leave nothing behind, and nothing of it readable; does no harm after `keep`."""
        if self._file is not None:
            self._file.close()
        if self._begun is not None:
            self._store.abandon(self._begun)
            self._begun = None
        if self.spilled is not None:
            self._store.remove(self.spilled)
            self.spilled = None
        if self._buffer is not None:
            self._store.buffers.give_back(self._buffer)
            self._buffer = None

    def _check(self, count: int) -> None:
        if self.size + count > self._limit_bytes:
            raise TooLarge

    def _added(self, part: Bytes) -> None:
        self.size += len(part)
        if self._spilled_hash is not None:
            self._spilled_hash.update(part)
        elif self.size > SPILL_BYTES:
            self._spill()

    @property
    def _in_memory(self) -> FileBuffer:
        if self._buffer is None:
            raise ValueError("This data set was discarded; nothing of it can be read or added.")
        return self._buffer

    def _spill(self) -> None:
        self.spilled, self._file = self._store.open_spill()
        content = self._in_memory.content()
        self._file.write(content)
        self._spilled_hash = blake3(content[self._data_start :])
        self._buffer = FileBuffer()
        self._buffer.append(content[: self._data_start + HEAD_BYTES])
