"""Phantoms as CT series in DICOM files, with all type 1 and type 2 attributes of the CT Image IOD (PS3.3 A.3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from training.phantom import BLEED_ML, Phantom, make_phantom, plan_bleeds

INTERCEPT_HU = -1024  # stored values start at 0 and fill twelve bits
TRUTH_FILE = "truth.json"


@dataclass(frozen=True)
class PhantomHeader:
    """Who the phantom says it is; all made up."""

    number: int
    acquired_at: datetime
    study_instance_uid: str

    @property
    def patient_name(self) -> str:
        """A name that nobody bears."""
        return f"PHANTOM^{self.number:04d}"


@dataclass(frozen=True)
class StudyTruth:
    """What is in one written study."""

    folder: str
    patient_id: str
    study_instance_uid: str
    bleed: bool
    kinds: tuple[str, ...]
    volume_ml: float


def write_phantoms(
    folder: Path,
    *,
    count: int,
    bleeds: int,
    seed: int,
    acquired_at: datetime,
    slices: int = 32,
    slice_mm: float = 5.0,
    size: int = 512,
    bleed_ml: tuple[float, float] = BLEED_ML,
    written: Callable[[StudyTruth], None] = lambda _truth: None,
) -> list[StudyTruth]:
    """Write `count` phantom studies, one folder each, `bleeds` of them with blood, and their truth as JSON.

    The first study is always bleed-free where any is, so that a list in order of arrival is not yet a triage list.

    Args:
        folder: made where it is missing.
        count: studies.
        bleeds: how many of them bleed.
        seed: of anatomy and bleeds; the identifiers are new on every call.
        acquired_at: date and time in the headers.
        slices: slices a study.
        slice_mm: their thickness and distance, mm.
        size: rows and columns.
        bleed_ml: smallest and largest volume of one bleed, mL.
        written: called after each study.
    """
    rng = np.random.default_rng(seed)
    bleeding = set((count - 1 - rng.permutation(max(count - 1, bleeds))[:bleeds]).tolist())
    truths = []
    for index in range(count):
        planned = plan_bleeds(rng, bleed_ml) if index in bleeding else ()
        phantom = make_phantom(int(rng.integers(2**31)), planned, slices=slices, slice_mm=slice_mm, size=size)
        header = PhantomHeader(index + 1, acquired_at, generate_uid())
        name = f"phantom_{index + 1:04d}"
        write_series(phantom, folder / name, header)
        truths.append(_truth_of(phantom, name, header))
        written(truths[-1])
    (folder / TRUTH_FILE).write_text(json.dumps([truth.__dict__ for truth in truths], indent=2) + "\n")
    return truths


def write_series(phantom: Phantom, folder: Path, header: PhantomHeader) -> list[Path]:
    """Write one phantom as one CT series; the paths in the order of slices, from the neck up."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = _shared_attributes(phantom, header)
    stored = (phantom.volume.hu - INTERCEPT_HU).astype("<u2")
    paths = []
    for index, plane in enumerate(stored):
        path = folder / f"IM{index + 1:04d}.dcm"
        _instance(shared, phantom, index, plane.tobytes()).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _truth_of(phantom: Phantom, name: str, header: PhantomHeader) -> StudyTruth:
    return StudyTruth(
        folder=name,
        patient_id=_patient_id(header),
        study_instance_uid=header.study_instance_uid,
        bleed=bool(phantom.kinds),
        kinds=tuple(kind.value for kind in phantom.kinds),
        volume_ml=round(phantom.volume_ml, 2),
    )


def _patient_id(header: PhantomHeader) -> str:
    return f"PH{header.number:04d}"


def _shared_attributes(phantom: Phantom, header: PhantomHeader) -> Dataset:
    ds = Dataset()
    _patient_and_study(ds, header)
    _series_and_equipment(ds, phantom)
    _pixels(ds, phantom)
    return ds


def _patient_and_study(ds: Dataset, header: PhantomHeader) -> None:
    date, time = header.acquired_at.strftime("%Y%m%d"), header.acquired_at.strftime("%H%M%S")
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID = header.patient_name, _patient_id(header)
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID, ds.StudyID = header.study_instance_uid, str(header.number)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = time
    ds.AccessionNumber, ds.ReferringPhysicianName = f"A{header.number:06d}", ""
    ds.StudyDescription = "CT HEAD WO CONTRAST"


def _series_and_equipment(ds: Dataset, phantom: Phantom) -> None:
    slice_mm = phantom.volume.spacing_mm[0]
    ds.SOPClassUID = CTImageStorage
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "CT", generate_uid(), 2
    ds.SeriesDescription, ds.BodyPartExamined = f"HEAD {slice_mm:g}", "HEAD"
    ds.PatientPosition, ds.ProtocolName = "HFS", "HEAD"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = generate_uid(), ""
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "ich-triage", "phantom", "1"
    ds.InstitutionName = "Phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.KVP, ds.AcquisitionNumber, ds.ConvolutionKernel = 120, 1, "STANDARD"
    ds.SliceThickness = f"{slice_mm:g}"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = INTERCEPT_HU, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 80


def _pixels(ds: Dataset, phantom: Phantom) -> None:
    _, row_mm, column_mm = phantom.volume.spacing_mm
    ds.Rows, ds.Columns = phantom.volume.hu.shape[1:]
    ds.PixelSpacing = [f"{row_mm:.6f}", f"{column_mm:.6f}"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0


def _instance(shared: Dataset, phantom: Phantom, index: int, pixel_data: bytes) -> Dataset:
    ds = Dataset(shared)
    ds.SOPInstanceUID = generate_uid()
    ds.InstanceNumber = index + 1
    slice_mm, row_mm, column_mm = phantom.volume.spacing_mm
    rows, columns = phantom.volume.hu.shape[1:]
    left, top = -(columns - 1) / 2 * column_mm, -(rows - 1) / 2 * row_mm
    ds.ImagePositionPatient = [f"{left:.4f}", f"{top:.4f}", f"{index * slice_mm:.4f}"]
    ds.SliceLocation = f"{index * slice_mm:.4f}"
    ds.add_new("PixelData", "OW", pixel_data)
    ds.file_meta = _file_meta(ds.SOPInstanceUID)
    return ds


def _file_meta(sop_instance_uid: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def truths_of(folder: Path) -> Sequence[StudyTruth]:
    """Read the truth that `write_phantoms` left in `folder`."""
    rows = json.loads((folder / TRUTH_FILE).read_text())
    return [StudyTruth(**{**row, "kinds": tuple(row["kinds"])}) for row in rows]
