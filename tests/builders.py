"""All DICOM of the tests is built here with pydicom; no patient's file enters the repository."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

AIR_HU = -1000
SKULL_HU = 900


def head_hu(
    slices: int,
    rows: int = 64,
    columns: int = 64,
    *,
    hu: float = 40,
    pixel_mm: tuple[float, float] = (3.5, 3.5),
) -> np.ndarray:
    """(Z, Y, X) float32: an oval head of 150 x 190 mm with a 7 mm skull, filled with `hu`, in air."""
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] * pixel_mm[0]
    x = (np.arange(columns) - (columns - 1) / 2)[None, :] * pixel_mm[1]
    radius = np.sqrt((y / 95.0) ** 2 + (x / 75.0) ** 2)  # 1 at the scalp
    plane = np.where(radius > 1, AIR_HU, np.where(radius > 0.92, SKULL_HU, hu)).astype(np.float32)
    return np.repeat(plane[None], slices, axis=0)


def ct_series(
    slices: int = 32,
    spacing_mm: tuple[float, float, float] = (5.0, 3.5, 3.5),
    hu: float | np.ndarray = 40,
    rows: int = 64,
    columns: int = 64,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    **header: Any,
) -> list[Dataset]:
    """Build one axial CT series, lowest slice first, as Explicit VR Little Endian instances.

    Args:
        slices: how many.
        spacing_mm: (z, y, x).
        hu: what the head is filled with, or the whole (Z, Y, X) volume.
        rows: of an image.
        columns: of an image.
        study_instance_uid: a new one if None.
        series_instance_uid: a new one if None.
        header: DICOM keywords to set on every instance; None deletes the element.
    """
    volume = hu if isinstance(hu, np.ndarray) else head_hu(slices, rows, columns, hu=hu, pixel_mm=spacing_mm[1:])
    study = study_instance_uid or generate_uid()
    series = series_instance_uid or generate_uid()
    frame_of_reference = generate_uid()
    datasets = []
    for index, plane in enumerate(volume):
        ds = ct_instance(plane, index, spacing_mm, study, series, frame_of_reference)
        for keyword, value in header.items():
            if value is None:
                if keyword in ds:
                    delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        datasets.append(ds)
    return datasets


def ct_instance(
    plane: np.ndarray,
    index: int,
    spacing_mm: tuple[float, float, float],
    study_instance_uid: str,
    series_instance_uid: str,
    frame_of_reference_uid: str,
) -> Dataset:
    """Build one CT image (PS3.3 A.3) of a (Y, X) plane in HU."""
    rows, columns = plane.shape
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "080910"
    ds.AccessionNumber = "A0001"
    ds.Modality = "CT"
    ds.Manufacturer = "builder"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "CT HEAD WO CONTRAST"
    ds.SeriesDescription = "HEAD 5.0"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P0001"
    ds.PatientBirthDate = "19560304"
    ds.PatientSex = "F"
    ds.PatientAge = "069Y"
    ds.BodyPartExamined = "HEAD"
    ds.KVP = 120
    ds.SliceThickness = spacing_mm[0]
    ds.ConvolutionKernel = "STANDARD"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = study_instance_uid
    ds.SeriesInstanceUID = series_instance_uid
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.InstanceNumber = index + 1
    ds.ImagePositionPatient = [-columns / 2 * spacing_mm[2], -rows / 2 * spacing_mm[1], index * spacing_mm[0]]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.PixelSpacing = list(spacing_mm[1:])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.PixelData = (np.rint(plane) + 1024).astype("<i2").tobytes()
    ds["PixelData"].VR = "OW"
    return with_file_meta(ds, ExplicitVRLittleEndian)


def secondary_capture(study_instance_uid: str, **header: Any) -> Dataset:
    """Build one Secondary Capture page of a study, as a dose or summary report is."""
    ds = Dataset()
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_instance_uid, generate_uid()
    ds.Modality, ds.ConversionType, ds.ImageType = "CT", "WSD", ["DERIVED", "SECONDARY"]
    ds.PatientName, ds.PatientID, ds.SeriesNumber, ds.InstanceNumber = "Doe^Jane", "P0001", 999, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", 16, 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = bytes(256)
    ds["PixelData"].VR = "OW"
    for keyword, value in header.items():
        setattr(ds, keyword, value)
    return with_file_meta(ds, ExplicitVRLittleEndian)


def localizer(study_instance_uid: str) -> Dataset:
    """Build one scout image of a study: sagittal, marked LOCALIZER."""
    [ds] = ct_series(slices=1, study_instance_uid=study_instance_uid, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    ds.SeriesNumber, ds.SeriesDescription = 1, "SCOUT"
    return ds


def with_file_meta(ds: Dataset, transfer_syntax_uid: str) -> Dataset:
    """Give a data set the File Meta Information of PS3.10 7.1."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    ds.file_meta = meta
    return ds


def write_files(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write each data set as a Part 10 file IM0001.dcm, IM0002.dcm, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IM{number:04d}.dcm" for number in range(1, len(datasets) + 1)]
    for ds, path in zip(datasets, paths, strict=True):
        ds.save_as(path, enforce_file_format=True)
    return paths


def encoded(ds: Dataset) -> bytes:
    """Give the data set's bytes as they travel in a C-STORE, without preamble and file meta."""
    buffer = BytesIO()
    meta = ds.file_meta
    try:
        del ds.file_meta
        ds.save_as(buffer, implicit_vr=meta.TransferSyntaxUID.is_implicit_VR, little_endian=True)
    finally:
        ds.file_meta = meta
    return buffer.getvalue()
