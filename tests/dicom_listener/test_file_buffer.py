"""Files put together in memory come to the disk as they are, whatever their size and wherever they lie in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dicom_listener.disk import BLOCK_BYTES, Disk
from dicom_listener.file_buffer import FIRST_BYTES, FileBuffer, FileBuffers

SIZES = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 525_608, FIRST_BYTES, FIRST_BYTES + 5]


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_buffer_comes_to_the_disk_as_it_is(tmp_path: Path, size: int) -> None:
    buffer, content = FileBuffer(), content_of(size)
    for start in range(0, size, 131_060):
        buffer.append(content[start : start + 131_060])

    Disk().write(tmp_path / "file", buffer.content())

    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("memory", [bytes, bytearray])
@pytest.mark.parametrize("size", SIZES)
def test_memory_that_is_not_aligned_comes_to_the_disk_as_well(
    tmp_path: Path, size: int, memory: type[bytes | bytearray]
) -> None:
    content = memory(b"x" + content_of(size))

    Disk().write(tmp_path / "file", memoryview(content)[1:])

    assert (tmp_path / "file").read_bytes() == content[1:]


def test_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"first")

    with pytest.raises(FileExistsError):
        Disk().write(tmp_path / "file", b"second")

    assert (tmp_path / "file").read_bytes() == b"first"


def test_buffer_is_used_again_with_nothing_left_in_it() -> None:
    buffers = FileBuffers()
    first = buffers.take()
    first.append(b"of one patient")
    buffers.give_back(first)

    second = buffers.take()
    second.append(b"other")

    assert second is first
    assert bytes(second.content()) == b"other"


def test_buffer_that_has_grown_goes_back_to_the_system() -> None:
    buffers = FileBuffers()
    grown = buffers.take()
    grown.append(bytes(FIRST_BYTES + 1))

    buffers.give_back(grown)

    assert buffers.take() is not grown
