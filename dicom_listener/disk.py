"""The few file operations that durability rests on, as one object, so that faults can be put in their place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

Bytes = bytes | bytearray | memoryview


class Disk:
    """The local disk. Each method is one durable step; any may raise OSError."""

    def write(self, path: Path, parts: Sequence[Bytes]) -> None:
        """Write a new file and wait until its content is on the disk."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_DSYNC, 0o640)
        try:
            _write_all(descriptor, parts)  # returns when the content is on the disk (O_DSYNC)
        finally:
            os.close(descriptor)

    def open(self, path: Path) -> BinaryIO:
        """Open a new file for a data set that is too large for memory."""
        return path.open("xb")

    def sync_file(self, path: Path) -> None:
        """Wait until a file's content is on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name."""
        os.rename(source, target)  # noqa: PTH104 - Path.rename makes a Path that nobody needs, for each image

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> bool:
        """Make a folder in an existing one; False if it was there."""
        try:
            folder.mkdir(mode=0o750)
        except FileExistsError:
            return False
        return True

    def remove(self, path: Path) -> None:
        """Remove a file; it may be gone already."""
        path.unlink(missing_ok=True)

    def free_bytes(self, folder: Path) -> int:
        """Give how many bytes an ordinary user may still write on the file system of a folder."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize


def _write_all(descriptor: int, parts: Sequence[Bytes]) -> None:
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        written = os.writev(descriptor, left[:64])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left and written:
            left[0] = left[0][written:]
