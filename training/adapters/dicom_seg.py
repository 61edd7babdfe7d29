"""The source of a site's own scans: CT series and the DICOM segmentations that readers drew or corrected on them.

A series counts where a segmentation names it: one with empty frames says that there is no blood. What an algorithm
drew alone (Segment Algorithm Type AUTOMATIC) is no truth and is refused.

Reference:
    PS3.3 A.51 (Segmentation IOD), C.8.20.2 (Segmentation Image).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import SegmentationStorage

from training.adapters.dicom_folder import files_below, headers_of, lenient, pseudonym_of, volume_of
from training.bleeds import BleedKind
from training.case import Case, case_of
from training.head_spaces import BoolField
from training.labelled_scan import LabelledScan
from training.scan_faults import BadScan, ScanFault
from triage.ct_series import SeriesHeader, on_volume_axes, sort_slices
from triage.errors import ConfigError
from triage.header_values import text

SOURCE = "dicom-seg"
LICENCE = "the site's own"
WORDS = {
    BleedKind.IVH: re.compile(r"\bIVH\b|ventricular", re.IGNORECASE),
    BleedKind.IPH: re.compile(r"\b(IPH|ICH)\b|parenchym|cerebral", re.IGNORECASE),
    BleedKind.SAH: re.compile(r"\bSAH\b|arachnoid", re.IGNORECASE),
    BleedKind.EDH: re.compile(r"\b(EDH|EH)\b|epidural|extradural", re.IGNORECASE),
    BleedKind.SDH: re.compile(r"\bSDH\b|subdural", re.IGNORECASE),
}
_TAGS = "SOPClassUID SeriesInstanceUID PatientID IssuerOfPatientID ReferencedSeriesSequence".split()


def dicom_seg_cases(folder: Path) -> Iterator[Case]:
    """Give the series that a segmentation names.

    Raises:
        ConfigError: the folder holds no segmentation.
    """
    files: dict[str, list[Path]] = {}
    segmentations: dict[str, list[Path]] = {}
    patients: dict[str, str] = {}
    with lenient():
        for path, ds in _headers(folder):
            drawn = text(ds, "SOPClassUID") == SegmentationStorage
            uid = _referenced_series(ds) if drawn else text(ds, "SeriesInstanceUID")
            (segmentations if drawn else files).setdefault(uid, []).append(path)
            patients.setdefault(uid, pseudonym_of(ds))
    if not segmentations:
        raise ConfigError(f"{folder} is no folder of segmented series: it has no DICOM Segmentation.")
    for uid, objects in sorted(segmentations.items()):
        patient = patients[uid]
        name = f"{patient}/{hashlib.sha256(uid.encode()).hexdigest()[:8]}"
        yield case_of(name, patient, SOURCE, partial(_read, name, patient, files.get(uid, []), objects))


def _headers(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    """Give the DICOM files below a folder; others, such as notes, are passed over."""
    for path in files_below(folder):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, EOFError):
            continue
        yield path, ds


def _referenced_series(ds: Dataset) -> str:
    references = ds.get("ReferencedSeriesSequence") or [Dataset()]
    return text(references[0], "SeriesInstanceUID")


def _read(name: str, patient: str, images: Sequence[Path], drawn: Sequence[Path]) -> LabelledScan:
    if not images:
        raise BadScan(name, ScanFault.MASK_WITHOUT_IMAGE, "a segmentation of a series that is not there")
    headers = [header for header in headers_of(name, images) if not header.is_localizer]
    if len(headers) != 1:
        raise BadScan(name, ScanFault.GEOMETRY, f"{len(headers)} kinds of image in the series; expected slices alone")
    volume = volume_of(name, headers[0])
    masks: dict[BleedKind | None, BoolField] = {}
    for path in drawn:
        for kind, mask in _segments(name, path, headers[0]).items():
            masks[kind] = masks.get(kind, np.zeros_like(mask)) | mask
    empty = np.zeros(volume.hu.shape, np.bool_)
    labels = [np.any(masks.get(kind, empty), axis=(1, 2)) for kind in BleedKind]
    mask = np.any(list(masks.values()), axis=0) if masks else empty
    return LabelledScan(volume, mask, np.stack(labels, axis=1), patient, SOURCE, licence=LICENCE)


def _segments(name: str, path: Path, header: SeriesHeader) -> Mapping[BleedKind | None, BoolField]:
    """Give the masks of a segmentation on the volume of its series, by kind; None: no kind is named."""
    ordered, _ = sort_slices(header)
    try:
        with lenient():
            drawn = highdicom.seg.segread(path)
            numbers = [_human(name, drawn, number) for number in drawn.segment_numbers]
            planes = drawn.get_pixels_by_source_instance(
                [item.sop_instance_uid for item in ordered],
                segment_numbers=numbers,
                assert_missing_frames_are_empty=True,
                ignore_spatial_locations=True,
                rescale_fractional=True,
            )  # (Z, rows, columns, segments)
    except BadScan:
        raise
    except Exception as error:  # the library raises many types for a malformed object; each means it is no truth
        raise BadScan(name, ScanFault.UNDECODABLE, f"segmentation: {type(error).__name__}") from error
    if planes.shape[1:3] != (ordered[0].rows, ordered[0].columns):
        expected = f"{ordered[0].rows} x {ordered[0].columns}"
        raise BadScan(
            name, ScanFault.GEOMETRY, f"segmentation of {planes.shape[1:3]} pixels; the images have {expected}"
        )
    found: dict[BleedKind | None, BoolField] = {}
    for index, number in enumerate(numbers):
        kind = _kind(drawn, number)
        mask = _on_volume(planes[..., index], header)
        found[kind] = found.get(kind, np.zeros_like(mask)) | mask
    return found


def _human(name: str, drawn: highdicom.seg.Segmentation, number: int) -> int:
    """Give a segment's number; refuses what no reader has touched."""
    algorithm = drawn.get_segment_description(number).algorithm_type.value
    if algorithm == "AUTOMATIC":
        raise BadScan(name, ScanFault.NO_TRUTH, "segment drawn by an algorithm alone; expected MANUAL or SEMIAUTOMATIC")
    return number


def _kind(drawn: highdicom.seg.Segmentation, number: int) -> BleedKind | None:
    description = drawn.get_segment_description(number)
    words = f"{description.segment_label} {description.segmented_property_type.meaning}"
    return next((kind for kind, pattern in WORDS.items() if pattern.search(words)), None)


def _on_volume(planes: npt.NDArray[np.generic], header: SeriesHeader) -> BoolField:
    ordered, _ = sort_slices(header)
    upright, _ = on_volume_axes(planes.astype(np.float32), ordered, outside=0.0)
    mask: BoolField = upright > 0.5
    return mask
