"""The source CQ500: DICOM studies in folders and `reads.csv`, what each of three radiologists saw.

Chilamkurthy S. et al., "Deep learning algorithms for detection of critical findings in head CT scans", Lancet 2018,
392, 2388-2396. A study bleeds where two of the three said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from training.adapters.dicom_folder import files_below, headers_of, plain_brain, volume_of
from training.bleeds import BleedKind
from training.case import Case, case_of, csv_rows, require
from training.labelled_scan import LabelledScan, LabelStrength
from training.scan_faults import BadScan, ScanFault
from triage.errors import ConfigError

SOURCE = "cq500"
LICENCE = "CC BY-NC-SA 4.0"
TABLE = "reads.csv"
READERS = ("R1", "R2", "R3")
MAJORITY = 2
STUDY_FOLDER = re.compile(r"CQ500-?CT-?(\d+)\b")  # "CQ500CT0 CQ500CT0"

Reads = Mapping[str, str]  # a row of the table


def cq500_cases(folder: Path) -> Iterator[Case]:
    """Give the studies of CQ500 whose folders are there, below the folder or below its `qct...` parts.

    Raises:
        ConfigError: the folder is not CQ500, or its CSV has other columns.
    """
    require(folder, (TABLE,), "CQ500")
    columns = ("name", *(f"{reader}:{label}" for reader in READERS for label in ("ICH", *BleedKind)))
    reads = {row["name"].strip(): row for row in csv_rows(folder / TABLE, columns, "CQ500")}
    studies = _study_folders(folder)
    if not studies:
        raise ConfigError(f"{folder} is not CQ500: it has no folder like 'CQ500CT0 CQ500CT0'.")
    for name, study in studies.items():
        yield case_of(name, name, SOURCE, partial(_read, name, study, reads.get(name)))


def majority(row: Reads, label: str) -> bool:
    """Say whether two of the three readers saw it."""
    return sum(row[f"{reader}:{label}"].strip() == "1" for reader in READERS) >= MAJORITY


def _study_folders(folder: Path) -> dict[str, Path]:
    inside = [path for path in folder.iterdir() if path.is_dir()]
    candidates = inside + [below for path in inside if path.name.startswith("qct") for below in path.iterdir()]
    found = {}
    for path in candidates:
        match = STUDY_FOLDER.match(path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return {f"CQ500-CT-{number}": found[number] for number in sorted(found)}


def _read(name: str, folder: Path, row: Reads | None) -> LabelledScan:
    if row is None:
        raise BadScan(name, ScanFault.NO_TRUTH, f"no row in {TABLE}")
    kinds = tuple(kind for kind in BleedKind if majority(row, kind.value))
    bleed = majority(row, "ICH")
    if kinds and not bleed:
        raise BadScan(name, ScanFault.CONTRADICTION, f"two readers saw {kinds[0]}, and not two a haemorrhage")
    volume = volume_of(name, plain_brain(name, headers_of(name, files_below(folder))))
    return LabelledScan(
        volume=volume,
        mask=np.zeros(volume.hu.shape, np.bool_),
        slice_labels=np.zeros((len(volume.hu), len(BleedKind)), np.bool_),
        patient=name,
        source=SOURCE,
        strength=LabelStrength.STUDY,
        study_bleed=bleed,
        study_kinds=kinds,
        licence=LICENCE,
    )
