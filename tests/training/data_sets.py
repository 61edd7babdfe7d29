"""Tiny data sets in the layouts that their authors publish, written by the tests that read them."""

from __future__ import annotations

import csv
from pathlib import Path

import highdicom
import nibabel
import numpy as np
from pydicom.config import disable_value_validation
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from tests.builders import ct_series, head_hu

SLICES = 14
SPACING_MM = (5.0, 3.5, 3.5)  # (z, y, x)
BLOOD = np.s_[6:8, 20:26, 30:40]  # (z, y, x) of a volume: in the head, before its middle, to the patient's left
RSNA_LABELS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
CQ500_COLUMNS = (
    "ICH IPH IVH SDH EDH SAH BleedLocation-Left BleedLocation-Right ChronicBleed Fracture CalvarialFracture "
    "OtherFracture MassEffect MidlineShift"
).split()


def head(seed: int = 0, slices: int = SLICES) -> np.ndarray:
    """(Z, Y, X) float32 HU on the axes of a volume, each seed another one."""
    hu = head_hu(slices)
    noise = np.random.default_rng(seed).integers(-3, 4, hu.shape)
    return np.where(hu == 40, hu + noise, hu).astype(np.float32)


def bleeding_head(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU and mask of a head with blood of 70 HU."""
    hu, mask = head(seed), np.zeros((SLICES, 64, 64), bool)
    mask[BLOOD] = True
    hu[mask] = 70
    return hu, mask


def save_nifti(path: Path, volume: np.ndarray, axes: str = "RAS", shear_mm: float = 0.0, dtype=np.int16) -> None:
    """Write a (Z, Y, X) volume, z to the head, y to the back, x to the left, as a NIfTI file of the named axes.

    Args:
        path: of the file.
        volume: on the axes of `triage.volume`.
        axes: nibabel's codes of the file's axes.
        shear_mm: how far each slice lies farther back than the one below it: a tilted gantry.
        dtype: of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    z, y, x = SPACING_MM
    affine = np.array([[-x, 0, 0, 100], [0, -y, -shear_mm, 120], [0, 0, z, -30], [0, 0, 0, 1]])  # x, y, z of LPS+
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0).astype(dtype), affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
    )
    nibabel.save(image.as_reoriented(turn), path)


def write_instance(folder: Path) -> Path:
    """INSTANCE 2022: train_2/data and train_2/label, masks of 0 and 1."""
    for number in (1, 2):
        hu, mask = bleeding_head(number)
        save_nifti(folder / "train_2" / "data" / f"{number:03d}.nii.gz", hu)
        save_nifti(folder / "train_2" / "label" / f"{number:03d}.nii.gz", mask)
    return folder


def write_bhsd(folder: Path) -> Path:
    """BHSD: imagesTr and labelsTr, masks of 0 to 5, files named by patient and study of RSNA 2019."""
    hu, mask = bleeding_head(3)
    values = mask * 1  # epidural
    values[7][mask[7]] = 4  # subarachnoid
    for part, volume in (("imagesTr", hu), ("labelsTr", values)):
        save_nifti(folder / part / "ID_0a1b2c3d_ID_5f6e7d8c9b.nii.gz", volume)
    return folder


def write_ct_ich_nifti(folder: Path, axes: str = "LAS") -> Path:
    """ct-ich 1.3.1: ct_scans, masks and the CSV of kinds by slice; slices are numbered from 1 along the file."""
    for patient, bleeds in ((49, True), (54, False)):
        hu, mask = bleeding_head(patient) if bleeds else (head(patient), np.zeros((SLICES, 64, 64), bool))
        save_nifti(folder / "ct_scans" / f"{patient:03d}.nii", hu, axes)
        save_nifti(folder / "masks" / f"{patient:03d}.nii", mask * 255, axes)
    names = "PatientNumber SliceNumber Intraventricular Intraparenchymal Subarachnoid Epidural Subdural".split()
    with (folder / "hemorrhage_diagnosis_raw_ct.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "No_Hemorrhage", "Fracture_Yes_No"])
        for patient in (49, 54):
            for number in range(1, SLICES + 1):
                shown = patient == 49 and slice_index(number - 1, axes) in (6, 7)
                writer.writerow([patient, number, 0, 0, 0, int(shown), 0, int(not shown), 0])
    return folder


def slice_index(file_index: int, axes: str) -> int:
    """Index in the volume of a slice of the file."""
    return file_index if axes[2] == "S" else SLICES - 1 - file_index


def write_rsna(folder: Path) -> Path:
    """RSNA 2019: all slices in one folder and a row for each label of each slice."""
    (folder / "stage_2_train").mkdir(parents=True)
    # its identifiers are no UIDs
    with (folder / "stage_2_train.csv").open("w", newline="") as file, disable_value_validation():
        writer = csv.writer(file)
        writer.writerow(["ID", "Label"])
        for patient, kind in (("0a1b2c3d", "subdural"), ("11111111", None)):
            for index, ds in enumerate(_rsna_series(patient)):
                ds.save_as(folder / "stage_2_train" / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
                shown = {kind, "any"} if kind and index in (6, 7) else set()
                writer.writerows([f"{ds.SOPInstanceUID}_{label}", int(label in shown)] for label in RSNA_LABELS)
    return folder


def _rsna_series(patient: str):
    datasets = ct_series(SLICES, SPACING_MM, head(int(patient[:4], 16)), ImageType=None, SeriesDescription=None)
    for index, ds in enumerate(datasets):
        ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (f"ID_{patient}", f"ID_1{patient}", f"ID_2{patient}")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"ID_{patient[:6]}{index:03x}"
        del ds.RescaleType
    return datasets


def write_cq500(folder: Path) -> Path:
    """CQ500: a folder a study with several series, and the reads of three radiologists."""
    votes = {0: {"R1": "ICH SDH", "R2": "ICH SDH IPH", "R3": ""}, 1: {"R1": "ICH IPH", "R2": "", "R3": ""}}
    for number in votes:
        study = folder / f"CQ500CT{number} CQ500CT{number}" / "Unknown Study"
        _save_series(study / "CT PLAIN THIN", ct_series(40, (1.0, 3.5, 3.5), head(0, 40), SeriesDescription="Thin"))
        _save_series(study / "CT Plain", ct_series(SLICES, SPACING_MM, head(number), SeriesDescription="CT Plain"))
        _save_series(study / "CT BONE", ct_series(SLICES, SPACING_MM, head(9), SeriesDescription="CT Bone"))
    with (folder / "reads.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["name", "Category", *(f"{reader}:{column}" for reader in votes[0] for column in CQ500_COLUMNS)]
        )
        for number, readers in votes.items():
            seen = [int(column in words.split()) for words in readers.values() for column in CQ500_COLUMNS]
            writer.writerow([f"CQ500-CT-{number}", "B1", *seen])
    return folder


def _save_series(folder: Path, datasets) -> None:
    folder.mkdir(parents=True)
    for index, ds in enumerate(datasets):
        ds.save_as(folder / f"CT{index:06d}.dcm", enforce_file_format=True)


def write_dicom_seg(
    folder: Path, label: str = "Subdural hemorrhage", algorithm: str = "MANUAL", tilt_mm: float = 0.0
) -> Path:
    """A site's folder: a CT series, the segmentation that a reader drew on it, and a series that nobody read."""
    hu, mask = bleeding_head(5)
    series = ct_series(SLICES, SPACING_MM, hu)
    _tilt(series, tilt_mm)
    _save_series(folder / "study1" / "ct", series)
    _save_series(folder / "study2" / "ct", ct_series(SLICES, SPACING_MM, head(6), PatientID="P0002"))
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Hemorrhage,
        algorithm_type=algorithm,
        algorithm_identification=None if algorithm == "MANUAL" else _algorithm(),
    )
    drawn = highdicom.seg.Segmentation(
        source_images=series,
        pixel_array=mask.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[description],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="builder",
        manufacturer_model_name="builder",
        software_versions="1",
        device_serial_number="1",
    )
    drawn.save_as(folder / "study1" / "seg.dcm")
    return folder


def _tilt(series, tilt_mm: float) -> None:
    """Lean the gantry: each slice lies farther back than the one below, and its rows lean with it."""
    if not tilt_mm:
        return
    length = float(np.hypot(SPACING_MM[0], tilt_mm))
    for index, ds in enumerate(series):
        ds.ImageOrientationPatient = [1, 0, 0, 0, SPACING_MM[0] / length, -tilt_mm / length]
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], index * SPACING_MM[0]]


def _algorithm():
    return highdicom.AlgorithmIdentificationSequence(
        name="finder", family=codes.DCM.ArtificialIntelligence, version="1"
    )
