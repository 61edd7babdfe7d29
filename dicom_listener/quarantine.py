"""How much is kept of what could not be taken as an instance: a broken sender must not fill the disk with it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dicom_listener.instance_store import QUARANTINE, quarantine_path

LOOK_EVERY_S = 5.0  # at the folder, which an administrator may empty at any time


class QuarantineRoom:
    """The bounds on the quarantine of one storage folder.

    Args:
        folder: the storage folder.
        max_bytes: of all files in quarantine.
        max_objects: of these files.
        clock: seconds, monotonic.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, max_objects: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder / QUARANTINE
        self._max_bytes = max_bytes
        self._max_objects = max_objects
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = -LOOK_EVERY_S
        self._objects = self._bytes = 0

    def take(self, size_bytes: int, blake3: str) -> bool:
        """Whether an object may be kept; it counts from now on. The same content again needs no room.

        Raises:
            OSError: the folder cannot be read.
        """
        if (self._folder.parent / quarantine_path(blake3)).exists():
            return True
        with self._lock:
            self._look()
            if self._objects + 1 > self._max_objects or self._bytes + size_bytes > self._max_bytes:
                return False
            self._objects += 1
            self._bytes += size_bytes
            return True

    def kept(self) -> tuple[int, int]:
        """Give how many objects are there, and their bytes.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._lock:
            self._look()
            return self._objects, self._bytes

    def is_full(self) -> bool:
        """Whether no further object would be kept."""
        objects, size = self.kept()
        return objects >= self._max_objects or size >= self._max_bytes

    def _look(self) -> None:
        if self._clock() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = self._clock()
        self._objects, self._bytes = _measured(self._folder)


def _measured(folder: Path) -> tuple[int, int]:
    sizes = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # an administrator is just removing it
                sizes.append(entry.stat(follow_symlinks=False).st_size)
    return len(sizes), sum(sizes)
