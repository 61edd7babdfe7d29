"""The files of instances as they lie in the store; paths come from the ledger only."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset

from triage.errors import UnreadableInstance
from triage.study import Instance

CHUNK_BYTES = 256 * 1024


def path_of(folder: Path, instance: Instance) -> Path:
    """Give the file of an instance below the storage folder."""
    return folder / instance.path


def present(folder: Path, instances: Sequence[Instance]) -> list[Instance]:
    """Give those instances whose files are there."""
    return [instance for instance in instances if path_of(folder, instance).is_file()]


def read(folder: Path, instance: Instance, *, pixels: bool = True, tags: list[int] | None = None) -> FileDataset:
    """Read a file leniently: values that break DICOM's rules are kept as they are.

    Args:
        folder: of the store.
        instance: which.
        pixels: also what comes from the pixel data on.
        tags: only these elements; None: all.

    Raises:
        UnreadableInstance: it is gone or no DICOM file.
    """
    try:
        with lenient():
            return pydicom.dcmread(path_of(folder, instance), stop_before_pixels=not pixels, specific_tags=tags)
    except Exception as error:  # pydicom raises what it likes on broken files
        raise UnreadableInstance(f"The stored file cannot be read: {type(error).__name__}.") from error


def chunks(path: Path) -> Iterator[bytes]:
    """Give a file's bytes in pieces."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


@contextmanager
def lenient() -> Iterator[None]:
    """Read and convert without complaints on values: they were sent so, and are given so."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield
