"""A scan that a source names and that is not read yet: known by its patient, so that splits cost no pixels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.labelled_scan import LabelledScan
from training.patients import fold_of, patient_key
from triage.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """One scan of a source.

    Attributes:
        name: what the source calls it, for people.
        patient: key of the patient within the source.
        source: name of the source.
        fold: part of a split by patient.
        read: gives the scan; raises `BadScan` where it cannot be used.
    """

    name: str
    patient: str
    source: str
    fold: int
    read: Callable[[], LabelledScan]


def case_of(name: str, patient: str, source: str, read: Callable[[], LabelledScan]) -> Case:
    """Give a case whose fold comes from its patient."""
    return Case(name, patient, source, fold_of(patient_key(source, patient)), read)


def require(folder: Path, names: Sequence[str], source: str) -> None:
    """Check that a folder is the source it claims to be.

    Raises:
        ConfigError: names what is missing.
    """
    for name in names:
        if not (folder / name).exists():
            raise ConfigError(f"{folder} is not {source}: it has no {name}.")


def csv_rows(path: Path, columns: Sequence[str], source: str) -> Iterator[dict[str, str]]:
    """Read a table row by row.

    Raises:
        ConfigError: it cannot be read, or lacks a column, which is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            found = [name.strip() for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in found]
            if missing:
                raise ConfigError(f"{path} is not {source}'s: no column {', '.join(missing)}.")
            reader.fieldnames = found
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} of {source} cannot be read: {type(error).__name__}.") from error
