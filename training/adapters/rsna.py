"""The source RSNA 2019: DICOM slices in one folder and a CSV of six labels a slice.

Flanders A. et al., "Construction of a Machine Learning Dataset through Collaboration: The RSNA 2019 Brain CT
Hemorrhage Challenge", Radiology: AI 2020, 2(3), e190211. The CSV is long: `ID_<image>_<label>,0|1`, a row a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from training.adapters.dicom_folder import SeriesFiles, group_series, headers_of, lenient, volume_of
from training.bleeds import BleedKind
from training.case import Case, case_of, csv_rows, require
from training.labelled_scan import LabelledScan, LabelStrength
from training.scan_faults import BadScan, ScanFault
from triage.errors import ConfigError
from triage.header_values import text

SOURCE = "rsna"
LICENCE = "RSNA 2019, non-commercial research"
TABLE = "stage_2_train.csv"
IMAGES = ("stage_2_train", "stage_2_train_images")
LABELS = {
    "intraventricular": BleedKind.IVH,
    "intraparenchymal": BleedKind.IPH,
    "subarachnoid": BleedKind.SAH,
    "epidural": BleedKind.EDH,
    "subdural": BleedKind.SDH,
}
ANY = 1 << len(BleedKind)
TWICE = ANY << 1  # two rows of one label differ
BITS = {"any": ANY, **{name: 1 << list(BleedKind).index(kind) for name, kind in LABELS.items()}}

ImageLabels = Mapping[str, int]  # bits of the labels, by image; a set has 750,000 images


def rsna_cases(folder: Path) -> Iterator[Case]:
    """Give the series of RSNA 2019, grouped by Series Instance UID.

    Raises:
        ConfigError: the folder is not RSNA 2019, or its CSV has other columns or labels.
    """
    require(folder, (TABLE,), "RSNA 2019")
    images = next((folder / name for name in IMAGES if (folder / name).is_dir()), None)
    if images is None:
        raise ConfigError(f"{folder} is not RSNA 2019: it has no {IMAGES[0]}.")
    labels = read_labels(folder / TABLE)
    for series in group_series(sorted(images.glob("*.dcm")), _series_and_patient).values():
        name = series.series_instance_uid or series.paths[0].stem
        patient = series.patient_id or name
        yield case_of(name, patient, SOURCE, partial(_read, name, patient, series, labels))


def read_labels(path: Path) -> ImageLabels:
    """Read the long CSV: bits of `BITS` for each image.

    Raises:
        ConfigError: other columns, or a row that is no label of an image.
    """
    labels: dict[str, int] = {}
    seen: dict[str, int] = {}
    for row in csv_rows(path, ("ID", "Label"), "RSNA 2019"):
        image, _, name = row["ID"].rpartition("_")
        if name not in BITS or not image or row["Label"] not in ("0", "1"):
            raise ConfigError(f"{path} is not RSNA 2019's: row {row['ID']!r} with label {row['Label']!r}.")
        bit, value = BITS[name], row["Label"] == "1"
        before = seen.get(image, 0)
        if before & bit and bool(labels[image] & bit) != value:
            labels[image] |= TWICE
        seen[image] = before | bit
        labels[image] = labels.get(image, 0) | (bit if value else 0)
    return labels


def _series_and_patient(path: Path) -> tuple[str, str]:
    try:
        with lenient():
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "PatientID"])
            return text(ds, "SeriesInstanceUID"), text(ds, "PatientID")
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, EOFError):
        return "", ""  # a series of its own, refused when it is read


def _read(name: str, patient: str, series: SeriesFiles, labels: ImageLabels) -> LabelledScan:
    headers = headers_of(name, series.paths)
    if len(headers) != 1:
        raise BadScan(name, ScanFault.GEOMETRY, f"{len(headers)} kinds of image in one series; expected slices alone")
    volume = volume_of(name, headers[0])
    slice_labels = np.array([_kinds(name, labels.get(uid)) for uid in volume.slice_uids], np.bool_)
    return LabelledScan(
        volume=volume,
        mask=np.zeros(volume.hu.shape, np.bool_),
        slice_labels=slice_labels,
        patient=patient,
        source=SOURCE,
        strength=LabelStrength.SLICES,
        licence=LICENCE,
    )


def _kinds(name: str, bits: int | None) -> list[bool]:
    """Give which kinds a slice shows."""
    if bits is None:
        raise BadScan(name, ScanFault.NO_TRUTH, f"a slice without a row in {TABLE}")
    kinds = [bool(bits >> index & 1) for index in range(len(BleedKind))]
    if bits & TWICE or bool(bits & ANY) != any(kinds):
        raise BadScan(name, ScanFault.CONTRADICTION, "the label `any` of a slice is not that of its kinds")
    return kinds
