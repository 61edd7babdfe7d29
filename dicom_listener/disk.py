"""The few file operations that durability rests on, as one object, so that faults can be put in their place."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_listener.background_write import BackgroundWriter, finish_write, start_write

Bytes = bytes | bytearray | memoryview
Place = str | Path  # a text where it is made for each image: Paths cost more than a rename
BLOCK_BYTES = 4096  # a multiple of what any disk asks for


@dataclass(frozen=True, slots=True)
class Writing:
    """A new file that is being written.

    Attributes:
        descriptor: of the open file.
        blocks: its content but for what is behind the last whole block, which is written already.
        writer: what writes the blocks; None: nothing does yet.
    """

    descriptor: int
    blocks: memoryview
    writer: BackgroundWriter | None


class Disk:
    """The local disk. Each method is one durable step; any may raise OSError."""

    def begin(self, path: Place, content: Bytes) -> Writing:
        """Make a new file and begin to write it; `finish` or `abandon` it, and leave `content` alone until then.

        The kernel writes while the thread goes on, where the file system can.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            return _begin(descriptor, memoryview(content))
        except OSError:
            os.close(descriptor)
            raise

    def finish(self, writing: Writing) -> None:
        """Wait until the content of a file that was begun is on the disk."""
        try:
            _write_rest(writing)
            os.fdatasync(writing.descriptor)
        finally:
            os.close(writing.descriptor)

    def abandon(self, writing: Writing) -> None:
        """Let go of a file that was begun; it stays as it is, for `remove`."""
        if writing.writer is not None:
            with suppress(OSError):  # it is not kept anyway
                finish_write(writing.writer)
        os.close(writing.descriptor)

    def write(self, path: Place, content: Bytes) -> None:
        """Write a new file and wait until its content is on the disk."""
        self.finish(self.begin(path, content))

    def open(self, path: Place) -> BinaryIO:
        """Open a new file for a data set that is too large for memory."""
        return open(path, "xb")  # noqa: PTH123 - a text

    def sync_file(self, path: Place) -> None:
        """Wait until a file's content is on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Place, target: Place) -> None:
        """Give a file its final name."""
        os.rename(source, target)  # noqa: PTH104 - texts

    def sync_folder(self, folder: Place) -> None:
        """Wait until the names in a folder are on the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Place) -> bool:
        """Make a folder in an existing one; False if it was there."""
        try:
            os.mkdir(folder, 0o750)  # noqa: PTH102 - as below
        except FileExistsError:
            return False
        return True

    def remove(self, path: Place) -> None:
        """Remove a file; it may be gone already."""
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - as above

    def free_bytes(self, folder: Place) -> int:
        """Give how many bytes an ordinary user may still write on the file system of a folder."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize


def _begin(descriptor: int, content: memoryview) -> Writing:
    """Begin to write past the page cache: a copy there, to be written at once, costs more than the disk takes.

    File systems that know no such way take the usual one.
    """
    end = len(content) - len(content) % BLOCK_BYTES
    blocks = content[:end]
    os.ftruncate(descriptor, len(content))  # ext4 would wait for each write that makes a file longer
    _write_all(descriptor, content[end:], at=end)
    os.posix_fadvise(descriptor, end, 0, os.POSIX_FADV_DONTNEED)  # sends it to the disk, and does not wait
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, getattr(os, "O_DIRECT", 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return Writing(descriptor, blocks, None)
    return Writing(descriptor, blocks, start_write(descriptor, blocks) if blocks else None)


def _write_rest(writing: Writing) -> None:
    """Write what the kernel has not written in the background, or not all of."""
    written = 0
    if writing.writer is not None:
        try:
            written = finish_write(writing.writer)
        except OSError as error:
            if error.errno != errno.EINVAL:  # memory that is not aligned to blocks
                raise
    if written < len(writing.blocks):
        fcntl.fcntl(writing.descriptor, fcntl.F_SETFL, 0)
        _write_all(writing.descriptor, writing.blocks[written:], at=written)


def _write_all(descriptor: int, content: memoryview, *, at: int) -> None:
    while len(content):
        written = os.pwrite(descriptor, content, at)
        content, at = content[written:], at + written
