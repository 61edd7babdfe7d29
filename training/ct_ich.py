"""The source ct-ich: 64 trauma CTs with masks, as 8-bit windowed images in a folder.

Hssayeni M. et al., "Computed Tomography Images for Intracranial Hemorrhage Detection and Segmentation", v1.0.0,
doi:10.13026/w8q8-ky94; Data 2020, 5(1), 14. Licence CC BY 4.0. The set has no pixel spacing, so millilitres measured
on it are plausible, not true.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.bleeds import BleedKind
from training.case import Case
from training.labelled_scan import LabelledScan
from triage.errors import ConfigError
from triage.volume import Volume

SOURCE = "ct-ich"
LICENCE = "CC BY 4.0"
SIDE = 384  # pixels of the brain window's images
SPACING_MM = (5.0, 0.6, 0.6)  # slices are 5 mm (the paper); in-plane is assumed: 0.6 mm gives heads of adult size
COLUMNS = ("slice", "patient", "slice_no", "any", *(kind.value for kind in BleedKind), "fold")

Row = dict[str, str]


def read_ct_ich(folder: Path, folds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Iterator[LabelledScan]:
    """Give the patients of `folds`, one after another.

    Raises:
        ConfigError: the folder is not ct-ich; names what is missing.
    """
    for case in ct_ich_cases(folder):
        if case.fold in folds:
            yield case.read()


def ct_ich_cases(folder: Path) -> Iterator[Case]:
    """Give the patients, not read yet, with the folds that the set names.

    Raises:
        ConfigError: the folder is not ct-ich; names what is missing.
    """
    for patient, rows in _rows_of_patients(folder).items():
        yield Case(patient, patient, SOURCE, int(rows[0]["fold"]), partial(_scan, folder, patient, rows))


def _rows_of_patients(folder: Path) -> dict[str, list[Row]]:
    for name in ("labels.csv", "brain", "bone", "mask"):
        if not (folder / name).exists():
            raise ConfigError(f"{folder} is not ct-ich: it has no {name}.")
    with (folder / "labels.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{folder / 'labels.csv'} is not ct-ich's: no column {', '.join(missing)}.")
        patients: dict[str, list[Row]] = defaultdict(list)
        for row in reader:
            patients[row["patient"]].append(row)
    return {patient: sorted(rows, key=lambda row: int(row["slice_no"])) for patient, rows in patients.items()}


def _scan(folder: Path, patient: str, rows: list[Row]) -> LabelledScan:
    planes, masks = [], []
    for row in rows:
        planes.append(_hounsfield(folder, row["slice"]))
        masks.append(_mask(folder / "mask" / f"{row['slice']}.png"))
    labels = [[row[kind.value] == "1" for kind in BleedKind] for row in rows]
    return LabelledScan(
        volume=Volume(np.stack(planes), SPACING_MM),
        mask=np.stack(masks),
        slice_labels=np.array(labels, bool),
        patient=patient,
        source=SOURCE,
        fold=int(rows[0]["fold"]),
        licence=LICENCE,
    )


def _hounsfield(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """Join the two windows: (384, 384) float32 HU, the brain window's where it is not clipped."""
    brain = _grey(folder / "brain" / f"{name}.jpg")
    bone = _grey(folder / "bone" / f"{name}.jpg")
    hu = np.where((brain > 2) & (brain < 253), brain / 255 * 120 - 20, bone / 255 * 3200 - 900)
    return np.where(bone <= 2, -1000.0, hu).astype(np.float32)


def _grey(path: Path) -> npt.NDArray[np.float32]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    except OSError as error:
        raise ConfigError(f"{path} of ct-ich cannot be read: {type(error).__name__}.") from error


def _mask(path: Path) -> npt.NDArray[np.bool_]:
    if not path.exists():
        return np.zeros((SIDE, SIDE), bool)  # only slices with blood have one
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 0
