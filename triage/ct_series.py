"""From the stored instances of a CT series to its header facts, and to a volume in Hounsfield units.

Coordinates are DICOM's patient system, LPS, mm (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from triage.errors import IrregularSpacing, UnreadableInstance, UnsuitableSeries
from triage.header_values import numbers, text, texts, whole
from triage.study import NotAnalysedReason
from triage.volume import AIR_HU, HU_RANGE, Volume

SPACING_RTOL = 0.01  # gaps within 1 % of their median count as regular
SPACING_ATOL_MM = 0.03  # and rounding of positions to two decimals is no gap
ORIENTATION_ATOL = 0.01  # direction cosines that differ less are one orientation (0.6 degrees)
MAX_TILT_DEGREES = 40.0  # gantries tilt up to 30; beyond 40 a slice is rather coronal
HU_TYPES = frozenset({"", "HU"})  # PS3.3 C.11.1.1.2; absent means HU for ORIGINAL CT images
MUST_REACH_HU = (-200.0, 100.0)  # every head CT has air below and bone above
_HEADER_KEYWORDS = (
    "SOPClassUID SOPInstanceUID Modality ImageType SeriesNumber SeriesDescription ProtocolName StudyDescription "
    "BodyPartExamined ConvolutionKernel ContrastBolusAgent InstanceNumber ImagePositionPatient "
    "ImageOrientationPatient PixelSpacing Rows Columns NumberOfFrames SliceThickness RescaleSlope RescaleIntercept "
    "RescaleType SeriesInstanceUID SpecificCharacterSet"
).split()


@dataclass(frozen=True)
class SliceHeader:
    """One image of a series, without its pixels; geometry is None where the header has none."""

    path: Path
    sop_instance_uid: str
    instance_number: int | None
    position_mm: tuple[float, float, float] | None  # of the first pixel's centre
    orientation: tuple[float, ...] | None  # direction cosines of the row, then of the column
    pixel_spacing_mm: tuple[float, float] | None  # (between rows, between columns)
    rows: int
    columns: int
    number_of_frames: int


@dataclass(frozen=True)
class SeriesHeader:
    """What the headers say of one series, or of the localizers that were stored with it."""

    series_instance_uid: str
    series_number: int | None
    description: str  # series description and protocol, as the technologist named it
    modality: str
    sop_class_uid: str
    image_type: tuple[str, ...]
    body_part: str
    kernel: str
    contrast_agent: str
    slices: tuple[SliceHeader, ...]

    @property
    def is_localizer(self) -> bool:
        """Whether these are scout images (PS3.3 C.8.2.1.1.1)."""
        return "LOCALIZER" in self.image_type


def read_series(paths: Iterable[Path]) -> list[SeriesHeader]:
    """Read the headers of a study's instances and sort them into series.

    Scouts that share a series with axial slices become an entry of their own, so that no slice is dropped to make
    the rest fit.

    Raises:
        UnreadableInstance: a file is no DICOM.
    """
    groups: dict[tuple[str, bool], list[tuple[Path, Dataset]]] = defaultdict(list)
    for path in paths:
        ds = _read_header(path)
        localizer = "LOCALIZER" in texts(ds, "ImageType")
        groups[(text(ds, "SeriesInstanceUID"), localizer)].append((path, ds))
    return [_series_header(uid, items) for (uid, _), items in groups.items()]


def sort_slices(series: SeriesHeader) -> tuple[list[SliceHeader], float]:
    """Order slices to the head and measure their distance along the normal.

    Returns:
        The slices, lowest first, and their spacing, mm.

    Raises:
        IrregularSpacing: slices are missing, doubled or unevenly spaced.
        UnsuitableSeries: positions are missing, or the orientation changes.

    Reference:
        PS3.3 C.7.6.2.1.1.
    """
    normal = slice_normal(series)
    positions = [np.dot(normal, item.position_mm) for item in series.slices if item.position_mm is not None]
    order = np.argsort(positions, kind="stable")
    gaps_mm = np.diff(np.asarray(positions)[order])
    if len(gaps_mm) == 0:
        raise UnsuitableSeries(NotAnalysedReason.TOO_FEW_SLICES, "1 slice; a volume needs at least 2")
    typical = float(np.median(gaps_mm))
    if np.any(np.abs(gaps_mm - typical) > max(SPACING_RTOL * typical, SPACING_ATOL_MM)) or typical <= 0:
        raise IrregularSpacing(gaps_mm.tolist())
    # the mean, not the median: over the whole head, rounding of single positions cancels
    return [series.slices[index] for index in order], float(gaps_mm.mean())


def slice_normal(series: SeriesHeader) -> npt.NDArray[np.float64]:
    """Give the one normal of a series, (3,) LPS, pointing to the head.

    Raises:
        UnsuitableSeries: a slice has no position or orientation, or the orientation changes.
    """
    found = [item for item in series.slices if item.orientation is not None and item.position_mm is not None]
    missing = len(series.slices) - len(found)
    if missing or not found:
        raise UnsuitableSeries(
            NotAnalysedReason.NO_GEOMETRY,
            f"{missing} of {len(series.slices)} slices have no position or orientation; expected both on each",
        )
    orientations = np.array([item.orientation for item in found])  # (slices, 6)
    spread = float(np.abs(orientations - orientations[0]).max())
    if spread > ORIENTATION_ATOL:
        raise UnsuitableSeries(
            NotAnalysedReason.SEVERAL_ORIENTATIONS,
            f"direction cosines differ by up to {spread:.3f}; expected at most {ORIENTATION_ATOL}",
        )
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:
        raise UnsuitableSeries(
            NotAnalysedReason.NO_GEOMETRY, f"row and column directions are not perpendicular (|normal| {length:.2f})"
        )
    return np.asarray(normal / length if normal[2] >= 0 else -normal / length, np.float64)


def tilt_degrees(series: SeriesHeader) -> float:
    """Measure the angle between the slices and the axial plane: gantry tilt, or 90 for sagittal and coronal."""
    return float(np.degrees(np.arccos(np.clip(abs(slice_normal(series)[2]), 0.0, 1.0))))


def read_volume(series: SeriesHeader) -> Volume:
    """Stack the slices of one axial CT series into Hounsfield units.

    Args:
        series: slices in any order, all in one Frame of Reference.

    Returns:
        `hu` (Z, Y, X) float32, z to the head, y to the back, x to the left; a tilted gantry's shift from slice to
        slice is taken out to the nearest pixel; what lies outside of the scanner's range is air.

    Raises:
        IrregularSpacing: gaps between slices differ.
        UnsuitableSeries: no geometry, no HU, or pixels that cannot be decoded.

    Reference:
        PS3.3 C.7.6.2.1.1 (position and orientation), C.11.1 (rescale slope and intercept).
    """
    ordered, spacing_z_mm = sort_slices(series)
    _common_pixel_spacing(ordered)
    planes = [_hounsfield(item.path, number, len(ordered)) for number, item in enumerate(ordered, 1)]
    hu = np.stack(planes)  # (Z, rows, columns) float32 HU
    _check_hu(hu)
    hu[(hu < HU_RANGE[0])] = AIR_HU  # padding of whatever value lies below the range (PS3.3 C.7.5.1.1.2)
    hu, (row_mm, column_mm) = on_volume_axes(hu, ordered)
    uids = tuple(item.sop_instance_uid for item in ordered)
    return Volume(np.ascontiguousarray(hu), (spacing_z_mm, row_mm, column_mm), uids)


def on_volume_axes(
    planes: npt.NDArray[np.float32], ordered: Sequence[SliceHeader], outside: float = AIR_HU
) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """Bring images of a series, or masks drawn on them, to the axes of its volume.

    Args:
        planes: (Z, rows, columns) float32, in the order of `sort_slices`.
        ordered: the slices, in the same order.
        outside: value of what a tilted gantry's shift moves in.

    Returns:
        (Z, Y, X) as `Volume` has it, and its (y, x) spacing, mm.

    Raises:
        UnsuitableSeries: the images differ in size or pixel spacing.
    """
    pixel_spacing_mm = _common_pixel_spacing(ordered)
    return _to_axes(_unshear(planes, ordered, pixel_spacing_mm, outside), ordered[0], pixel_spacing_mm)


def shifted(plane: npt.NDArray[np.float32], down: int, right: int, outside: float = AIR_HU) -> npt.NDArray[np.float32]:
    """Move one plane by whole pixels; what comes in is `outside`."""
    out = np.full_like(plane, outside)
    rows, columns = plane.shape
    source = plane[max(0, -down) : max(0, rows - down), max(0, -right) : max(0, columns - right)]
    top, left = max(0, down), max(0, right)
    out[top : top + source.shape[0], left : left + source.shape[1]] = source
    return out


def _read_header(path: Path) -> Dataset:
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER_KEYWORDS))
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, EOFError) as error:
        raise UnreadableInstance(f"A stored file is no readable DICOM: {type(error).__name__}.") from error


def _series_header(uid: str, items: Sequence[tuple[Path, Dataset]]) -> SeriesHeader:
    first = items[0][1]
    described = (text(first, "SeriesDescription"), text(first, "ProtocolName"))
    return SeriesHeader(
        series_instance_uid=uid,
        series_number=whole(first, "SeriesNumber"),
        description=" / ".join(part for part in described if part),
        modality=text(first, "Modality"),
        sop_class_uid=text(first, "SOPClassUID"),
        image_type=texts(first, "ImageType"),
        body_part=text(first, "BodyPartExamined"),
        kernel=" ".join(texts(first, "ConvolutionKernel")),
        contrast_agent=text(first, "ContrastBolusAgent"),
        slices=tuple(_slice_header(path, ds) for path, ds in items),
    )


def _slice_header(path: Path, ds: Dataset) -> SliceHeader:
    position = numbers(ds, "ImagePositionPatient", 3)
    spacing = numbers(ds, "PixelSpacing", 2)
    return SliceHeader(
        path=path,
        sop_instance_uid=text(ds, "SOPInstanceUID"),
        instance_number=whole(ds, "InstanceNumber"),
        position_mm=None if position is None else (position[0], position[1], position[2]),
        orientation=numbers(ds, "ImageOrientationPatient", 6),
        pixel_spacing_mm=None if spacing is None else (spacing[0], spacing[1]),
        rows=whole(ds, "Rows") or 0,
        columns=whole(ds, "Columns") or 0,
        number_of_frames=whole(ds, "NumberOfFrames") or 1,
    )


def _common_pixel_spacing(slices: Sequence[SliceHeader]) -> tuple[float, float]:
    shapes = {(item.rows, item.columns, item.pixel_spacing_mm, item.number_of_frames) for item in slices}
    rows, columns, spacing, frames = next(iter(shapes))
    if len(shapes) > 1 or spacing is None or min(spacing) <= 0 or frames != 1:
        raise UnsuitableSeries(
            NotAnalysedReason.NO_GEOMETRY,
            f"{len(shapes)} image sizes or pixel spacings, the first {rows} x {columns} with {frames} frames and "
            f"spacing {spacing} mm; expected one size, one spacing and one frame an image",
        )
    return spacing


def _hounsfield(path: Path, number: int, count: int) -> npt.NDArray[np.float32]:
    """Decode one image: (rows, columns) float32 HU."""
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path)
            slope, intercept = _rescale(ds)
            stored = ds.pixel_array
    except UnsuitableSeries:
        raise
    except Exception as error:  # decoders raise what they like; each means that this image cannot be read
        syntax = _transfer_syntax_name(path)
        raise UnsuitableSeries(
            NotAnalysedReason.CANNOT_DECODE,
            f"image {number} of {count} ({syntax}): {type(error).__name__}. Ask for it uncompressed",
        ) from error
    if stored.ndim != 2:
        raise UnsuitableSeries(
            NotAnalysedReason.CANNOT_DECODE, f"image {number} of {count} has shape {stored.shape}; expected one plane"
        )
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _rescale(ds: Dataset) -> tuple[float, float]:
    slope, intercept = numbers(ds, "RescaleSlope", 1), numbers(ds, "RescaleIntercept", 1)
    rescale_type = text(ds, "RescaleType").upper()
    if slope is None or intercept is None or rescale_type not in HU_TYPES or slope[0] == 0:
        raise UnsuitableSeries(
            NotAnalysedReason.NO_HU,
            f"rescale slope {slope and slope[0]}, intercept {intercept and intercept[0]}, type "
            f"{rescale_type or 'absent'}; expected numbers and HU",
        )
    return slope[0], intercept[0]


def _check_hu(hu: npt.NDArray[np.float32]) -> None:
    lowest, highest = float(hu.min()), float(hu.max())
    if lowest > MUST_REACH_HU[0] or highest < MUST_REACH_HU[1]:
        raise UnsuitableSeries(
            NotAnalysedReason.NO_HU,
            f"values run from {lowest:.0f} to {highest:.0f}; expected air below {MUST_REACH_HU[0]:.0f} and bone "
            f"above {MUST_REACH_HU[1]:.0f} HU",
        )


def _unshear(
    hu: npt.NDArray[np.float32],
    slices: Sequence[SliceHeader],
    pixel_spacing_mm: tuple[float, float],
    outside: float,
) -> npt.NDArray[np.float32]:
    """Move each slice of a tilted gantry so that the middle slice's pixels lie on one normal, to the nearest pixel."""
    positions = np.array([item.position_mm for item in slices], np.float64)  # (Z, 3)
    row_direction, column_direction = np.array(slices[0].orientation, np.float64).reshape(2, 3)
    offsets_mm = positions - positions[len(slices) // 2]
    columns = np.rint(offsets_mm @ row_direction / pixel_spacing_mm[1]).astype(int)
    rows = np.rint(offsets_mm @ column_direction / pixel_spacing_mm[0]).astype(int)
    if not rows.any() and not columns.any():
        return hu
    return np.stack(
        [shifted(plane, int(down), int(right), outside) for plane, down, right in zip(hu, rows, columns, strict=True)]
    )


def _to_axes(
    hu: npt.NDArray[np.float32], item: SliceHeader, pixel_spacing_mm: tuple[float, float]
) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """Turn and flip slices so that rows run to the back (P) and columns to the patient's left (L)."""
    row_direction, column_direction = np.array(item.orientation, np.float64).reshape(2, 3)
    if abs(row_direction[0]) < abs(row_direction[1]):  # rows run front to back: a quarter turn
        hu = hu.transpose(0, 2, 1)
        row_direction, column_direction = column_direction, row_direction
        pixel_spacing_mm = (pixel_spacing_mm[1], pixel_spacing_mm[0])
    if row_direction[0] < 0:
        hu = hu[:, :, ::-1]
    if column_direction[1] < 0:
        hu = hu[:, ::-1]
    return hu, pixel_spacing_mm


def _transfer_syntax_name(path: Path) -> str:
    try:
        return str(UID(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID).name)
    except (AttributeError, InvalidDicomError, OSError):
        return "no transfer syntax"
