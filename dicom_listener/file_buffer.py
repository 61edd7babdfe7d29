"""Memory in which a file is put together: aligned, so that the disk takes it without a copy, and used again.

New memory costs a page fault for every 4 KiB of an image; on a virtual machine that is more than writing it.
"""

from __future__ import annotations

import mmap

from dicom_listener.disk import Bytes

FIRST_BYTES = 1024 * 1024  # a CT slice has 0.5 MB; a larger data set doubles it as it comes
KEPT_AT_MOST = 8  # idle buffers of that size; larger ones go back to the system


class FileBuffer:
    """A file that grows in memory, from the beginning of a page on."""

    def __init__(self) -> None:
        self._memory = _pages(FIRST_BYTES)
        self.size = 0

    @property
    def capacity(self) -> int:
        """Bytes that it can hold without growing."""
        return len(self._memory)

    def append(self, part: Bytes) -> None:
        """Add the next part."""
        self.place(len(part))[:] = part
        self.placed(len(part))

    def place(self, count: int) -> memoryview:
        """Give the memory of the next `count` bytes, to be filled; they belong to the file once they are `placed`."""
        end = self.size + count
        if end > len(self._memory):
            self._grow(end)
        return memoryview(self._memory)[self.size : end]

    def placed(self, count: int) -> memoryview:
        """Take in bytes that were filled into their place; give them."""
        start, self.size = self.size, self.size + count
        return memoryview(self._memory)[start : self.size]

    def content(self) -> memoryview:
        """Give what it holds; valid until it grows or is used again."""
        return memoryview(self._memory)[: self.size]

    def clear(self) -> None:
        """Begin anew."""
        self.size = 0

    def _grow(self, size: int) -> None:
        larger = _pages(max(size, 2 * len(self._memory)))
        larger[: self.size] = self.content()
        self._memory = larger


class FileBuffers:
    """The buffers of all associations; safe to use from any thread."""

    def __init__(self) -> None:
        self._idle: list[FileBuffer] = []

    def take(self) -> FileBuffer:
        """Give an empty buffer; `give_back` it."""
        try:
            return self._idle.pop()  # the one used last, whose memory is still in the processor's cache
        except IndexError:
            return FileBuffer()

    def give_back(self, buffer: FileBuffer) -> None:
        """Keep a buffer for the next data set."""
        buffer.clear()
        if len(self._idle) < KEPT_AT_MOST and buffer.capacity == FIRST_BYTES:
            self._idle.append(buffer)


def _pages(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
