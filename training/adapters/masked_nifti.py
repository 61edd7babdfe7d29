"""The sources INSTANCE 2022, BHSD and ct-ich 1.3.1: folders of NIfTI volumes with a mask beside each.

INSTANCE 2022: Li X. et al., "The state-of-the-art 3D anisotropic intracranial hemorrhage segmentation on non-contrast
head CT: the INSTANCE challenge", arXiv 2301.03281. Masks of 0 and 1.

BHSD: Wu B. et al., "BHSD: A 3D Multi-Class Brain Hemorrhage Segmentation Dataset", arXiv 2308.11298. Masks of 0 to 5.
Drawn on RSNA 2019: a file is named by that set's patient and study.

ct-ich 1.3.1: Hssayeni M. et al., doi:10.13026/4nae-zg36. Masks, and a CSV of kinds by slice.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.adapters.nifti import NiftiScan, nifti_files, read_image, read_mask
from training.bleeds import BleedKind
from training.case import Case, case_of, csv_rows, require
from training.head_spaces import BoolField
from training.labelled_scan import LabelledScan
from training.scan_faults import BadScan, ScanFault
from triage.errors import ConfigError

BHSD_KINDS = {1: BleedKind.EDH, 2: BleedKind.IPH, 3: BleedKind.IVH, 4: BleedKind.SAH, 5: BleedKind.SDH}
BHSD_LABELS = {1: "epidural", 2: "intraparenchymal", 3: "intraventricular", 4: "subarachnoid", 5: "subdural"}
BHSD_NAME = re.compile(r"(ID_[0-9a-f]+)_ID_[0-9a-f]+")  # patient and study of RSNA 2019
CT_ICH_TABLE = "hemorrhage_diagnosis_raw_ct.csv"
CT_ICH_KINDS = {
    BleedKind.IVH: "Intraventricular",
    BleedKind.IPH: "Intraparenchymal",
    BleedKind.SAH: "Subarachnoid",
    BleedKind.EDH: "Epidural",
    BleedKind.SDH: "Subdural",
}

SliceKinds = Mapping[str, Mapping[int, tuple[bool, ...]]]  # patient, slice number from 1, one for each of `BleedKind`


@dataclass(frozen=True)
class MaskedSet:
    """What makes one set differ from another.

    Attributes:
        source: its name.
        licence: under which it is published.
        kinds: kind of each label value; empty where 1 is blood of any kind.
    """

    source: str
    licence: str
    kinds: Mapping[int, BleedKind] = field(default_factory=dict)


INSTANCE = MaskedSet("instance", "CC BY-NC-ND 4.0")
BHSD = MaskedSet("bhsd", "MIT; images RSNA 2019, non-commercial research", BHSD_KINDS)
CT_ICH = MaskedSet("ct-ich-nifti", "PhysioNet Restricted Health Data License 1.5.0")


def instance_cases(folder: Path) -> Iterator[Case]:
    """Give the scans of INSTANCE 2022: `data/` and `label/`, in the folder or in its `train_2/` or `train/`.

    Raises:
        ConfigError: the folder is not INSTANCE 2022.
    """
    root = next((folder / name for name in ("train_2", "train") if (folder / name).is_dir()), folder)
    require(root, ("data", "label"), "INSTANCE 2022")
    for name, image, mask in _pairs(root / "data", root / "label", "INSTANCE 2022"):
        yield case_of(name, name, INSTANCE.source, partial(_read, INSTANCE, name, name, image, mask))


def bhsd_cases(folder: Path) -> Iterator[Case]:
    """Give the scans of BHSD that have masks: `imagesTr/` and `labelsTr/`, or `images/` and `ground truths/`.

    Raises:
        ConfigError: the folder is not BHSD, or its `dataset.json` gives other label values.
    """
    root = folder / "label_192" if (folder / "label_192").is_dir() else folder
    names = ("images", "ground truths") if (root / "images").is_dir() else ("imagesTr", "labelsTr")
    require(root, names, "BHSD")
    _check_labels(root / "dataset.json")
    for name, image, mask in _pairs(root / names[0], root / names[1], "BHSD"):
        match = BHSD_NAME.fullmatch(name)
        if match is None:
            raise ConfigError(f"{root / names[0]} is not BHSD's: {name} is not named ID_<patient>_ID_<study>.")
        yield case_of(name, match[1], BHSD.source, partial(_read, BHSD, name, match[1], image, mask))


def ct_ich_nifti_cases(folder: Path) -> Iterator[Case]:
    """Give the scans of ct-ich 1.3.1: `ct_scans/`, `masks/` and the CSV of kinds by slice.

    Raises:
        ConfigError: the folder is not ct-ich 1.3.1, or its CSV has other columns.
    """
    require(folder, ("ct_scans", "masks", CT_ICH_TABLE), "ct-ich 1.3.1")
    kinds = _ct_ich_kinds(folder / CT_ICH_TABLE)
    for name, image, mask in _pairs(folder / "ct_scans", folder / "masks", "ct-ich 1.3.1"):
        patient = name.lstrip("0")
        read = partial(_read_ct_ich, name, patient, image, mask, kinds.get(patient, {}))
        yield case_of(name, patient, CT_ICH.source, read)


def _pairs(images: Path, masks: Path, source: str) -> list[tuple[str, Path | None, Path | None]]:
    """Match images and masks by name; either may be missing."""
    by_name, masks_by_name = nifti_files(images), nifti_files(masks)
    if not by_name:
        raise ConfigError(f"{images} is not {source}'s: it has no NIfTI file.")
    names = sorted(by_name.keys() | masks_by_name.keys())
    return [(name, by_name.get(name), masks_by_name.get(name)) for name in names]


def _read(chosen: MaskedSet, name: str, patient: str, image: Path | None, mask: Path | None) -> LabelledScan:
    scan, values = _read_pair(name, image, mask)
    known = {0, *(chosen.kinds or {1})}
    strange = sorted(set(np.unique(values).tolist()) - known)
    if strange:
        raise BadScan(name, ScanFault.CONTRADICTION, f"mask holds the values {strange}; expected {sorted(known)}")
    return _labelled(chosen, patient, scan, values > 0, _slice_labels(values, chosen.kinds))


def _read_ct_ich(
    name: str, patient: str, image: Path | None, mask: Path | None, by_slice: Mapping[int, tuple[bool, ...]]
) -> LabelledScan:
    scan, values = _read_pair(name, image, mask)
    slices = len(scan.volume.hu)
    if sorted(by_slice) != list(range(1, slices + 1)) or len(scan.placement.slice_indices) != slices:
        raise BadScan(name, ScanFault.CONTRADICTION, f"{len(by_slice)} rows of {CT_ICH_TABLE} for {slices} slices")
    labels = np.array([by_slice[int(index) + 1] for index in scan.placement.slice_indices], np.bool_)
    return _labelled(CT_ICH, patient, scan, values > 0, labels)


def _read_pair(name: str, image: Path | None, mask: Path | None) -> tuple[NiftiScan, npt.NDArray[np.int16]]:
    if image is None:
        raise BadScan(name, ScanFault.MASK_WITHOUT_IMAGE, "a mask, and no image of that name")
    if mask is None:
        raise BadScan(name, ScanFault.NO_TRUTH, "an image, and no mask of that name")
    scan = read_image(image, name)
    return scan, read_mask(mask, name, scan)


def _labelled(chosen: MaskedSet, patient: str, scan: NiftiScan, mask: BoolField, labels: BoolField) -> LabelledScan:
    return LabelledScan(scan.volume, mask, labels, patient, chosen.source, licence=chosen.licence)


def _slice_labels(values: npt.NDArray[np.int16], kinds: Mapping[int, BleedKind]) -> BoolField:
    """Say which kinds each slice of a mask shows: (Z, kinds); none where the set names no kinds."""
    value_of = {kind: value for value, kind in kinds.items()}
    columns: Sequence[BoolField] = [
        np.any(values == value_of[kind], axis=(1, 2)) if kind in value_of else np.zeros(len(values), np.bool_)
        for kind in BleedKind
    ]
    return np.stack(columns, axis=1)


def _check_labels(path: Path) -> None:
    """Check that BHSD's own description, where it is given, means the kinds that are read."""
    if not path.exists():
        return
    try:
        labels = json.loads(path.read_text())["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not BHSD's: {type(error).__name__}; expected its labels.") from error
    wrong = [
        f"{value} is {labels.get(str(value))}" for value, kind in BHSD_LABELS.items() if labels.get(str(value)) != kind
    ]
    if wrong:
        raise ConfigError(f"{path} is not BHSD's: {', '.join(wrong)}; expected {BHSD_LABELS}.")


def _ct_ich_kinds(path: Path) -> SliceKinds:
    kinds: dict[str, dict[int, tuple[bool, ...]]] = defaultdict(dict)
    columns = ("PatientNumber", "SliceNumber", *CT_ICH_KINDS.values())
    for row in csv_rows(path, columns, "ct-ich 1.3.1"):
        shown = tuple(row[CT_ICH_KINDS[kind]].strip() == "1" for kind in BleedKind)
        kinds[row["PatientNumber"].strip().lstrip("0")][_whole(row["SliceNumber"], path)] = shown
    return kinds


def _whole(value: str, path: Path) -> int:
    try:
        return int(float(value))
    except ValueError as error:
        raise ConfigError(f"{path}: {value!r} is no slice number.") from error
