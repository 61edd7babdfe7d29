"""Files that the kernel writes while the thread goes on are the same as those that it waits for."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dicom_listener import background_write
from dicom_listener.background_write import BackgroundWriter, start_write
from dicom_listener.disk import Disk
from dicom_listener.file_buffer import FileBuffer

CONTENT = random.Random(7).randbytes(525_608)


def buffer_of(content: bytes) -> FileBuffer:
    buffer = FileBuffer()
    buffer.append(content)
    return buffer


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def open_past_the_page_cache(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"this file system knows no way past the page cache: {error.strerror}")


def test_kernel_writes_in_the_background_here(tmp_path: Path) -> None:
    os.close(open_past_the_page_cache(tmp_path / "probe"))
    writing = Disk().begin(tmp_path / "file", buffer_of(CONTENT).content())

    assert writing.writer is not None
    Disk().abandon(writing)


def test_files_that_are_written_at_once_hold_what_belongs_to_each(tmp_path: Path) -> None:
    disk, buffers = Disk(), [buffer_of(bytes([number]) * 600_000) for number in range(12)]

    begun = [disk.begin(tmp_path / str(number), buffer.content()) for number, buffer in enumerate(buffers)]
    for writing in reversed(begun):
        disk.finish(writing)

    assert [(tmp_path / str(number)).read_bytes() for number in range(12)] == [
        bytes([number]) * 600_000 for number in range(12)
    ]


def test_memory_may_be_used_again_once_a_file_is_abandoned(tmp_path: Path) -> None:
    disk, buffer, before = Disk(), buffer_of(CONTENT), open_files()

    disk.abandon(disk.begin(tmp_path / "first", buffer.content()))
    buffer.clear()
    buffer.append(CONTENT[::-1])
    disk.write(tmp_path / "second", buffer.content())

    assert (tmp_path / "second").read_bytes() == CONTENT[::-1]
    assert open_files() == before


@pytest.mark.usefixtures("nothing_in_the_background")
def test_file_is_written_where_the_kernel_offers_no_background(tmp_path: Path) -> None:
    writing = Disk().begin(tmp_path / "file", buffer_of(CONTENT).content())
    Disk().finish(writing)

    assert writing.writer is None
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.fixture
def nothing_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor whose system calls have other numbers."""
    monkeypatch.setattr(background_write, "_SETUP", -1)
    monkeypatch.setattr(background_write, "_idle", [])


def test_memory_that_cannot_be_lent_is_not_written_in_the_background(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert start_write(file.fileno(), memoryview(CONTENT)) is None


def test_fork_writes_by_itself(tmp_path: Path) -> None:
    Disk().write(tmp_path / "parent", buffer_of(CONTENT).content())  # leaves a writer that is the parent's alone
    pid = os.fork()
    if pid == 0:
        try:
            Disk().write(tmp_path / "child", buffer_of(CONTENT).content())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert (tmp_path / "child").read_bytes() == CONTENT


def test_write_that_fails_says_why(tmp_path: Path) -> None:
    descriptor = open_past_the_page_cache(tmp_path / "file")
    try:
        writer = BackgroundWriter()
        assert writer.start(descriptor, buffer_of(CONTENT).content()[1:4097])  # not aligned to blocks

        with pytest.raises(OSError, match="Invalid argument"):
            writer.wait()
    finally:
        os.close(descriptor)


def test_write_that_the_kernel_refuses_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as read_only:
        assert not BackgroundWriter().start(read_only.fileno(), buffer_of(CONTENT).content())
