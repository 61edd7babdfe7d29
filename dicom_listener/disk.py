"""The few file operations that durability rests on, as one object, so that faults can be put in their place."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

Bytes = bytes | bytearray | memoryview
Place = str | Path  # a text where it is made for each image: Paths cost more than a rename
BLOCK_BYTES = 4096  # a multiple of what any disk asks for


class Disk:
    """The local disk. Each method is one durable step; any may raise OSError."""

    def write(self, path: Place, content: Bytes) -> None:
        """Write a new file and wait until its content is on the disk."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            whole_blocks = len(content) - len(content) % BLOCK_BYTES
            view = memoryview(content)
            _write_all(descriptor, view[whole_blocks:], at=whole_blocks)
            _write_straight(descriptor, view[:whole_blocks])
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

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


def _write_straight(descriptor: int, content: memoryview) -> None:
    """Write whole blocks past the page cache: a copy there, to be written at once, costs more than the disk takes.

    Memory that is not aligned to blocks, and file systems that know no such way, take the usual one.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, getattr(os, "O_DIRECT", 0))
        written = os.pwrite(descriptor, content, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        written = 0
    if written < len(content):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        _write_all(descriptor, content[written:], at=written)


def _write_all(descriptor: int, content: memoryview, *, at: int) -> None:
    while len(content):
        written = os.pwrite(descriptor, content, at)
        content, at = content[written:], at + written
