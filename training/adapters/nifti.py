"""NIfTI volumes brought to the axes of `triage.volume`: from RAS+ to LPS, slices to the head, gantry tilt taken out.

Reference:
    NIfTI-1 (qform and sform give millimetres to the right, front and head); PS3.3 C.7.6.2.1.1 for LPS.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError, SpatialImage

from training.scan_faults import BadScan, ScanFault
from triage.ct_series import MAX_TILT_DEGREES, ORIENTATION_ATOL, shifted
from triage.volume import AIR_HU, HU_RANGE, Volume

SUFFIXES = (".nii.gz", ".nii")
SPACING_RTOL = 0.02  # spacings of an image and its mask that differ less are one grid

Planes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where the voxels of a NIfTI file lie, after its axes were put in the order of a volume.

    Attributes:
        spacing_mm: (z, y, x), mm; z along the normal of the slices.
        shear: (rows, columns) that each slice is shifted against the one below, pixels.
        slice_indices: (Z,) index along the file's third axis of each slice; empty where slices run along another.
    """

    spacing_mm: tuple[float, float, float]
    shear: tuple[float, float]
    slice_indices: npt.NDArray[np.intp]


@dataclass(frozen=True)
class NiftiScan:
    """A NIfTI image as a volume."""

    volume: Volume
    placement: Placement


def stem(path: Path) -> str:
    """Give the name of a NIfTI file without `.nii.gz` or `.nii`."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def nifti_files(folder: Path) -> dict[str, Path]:
    """Give the NIfTI files of a folder by their stem, in order."""
    return {stem(path): path for path in sorted(folder.iterdir()) if path.name.endswith(SUFFIXES)}


def read_image(path: Path, name: str) -> NiftiScan:
    """Read a CT in HU.

    Raises:
        BadScan: it cannot be read, holds values that are no numbers, or lies in no axial planes.
    """
    planes, placement = _read(path, name)
    planes[planes < HU_RANGE[0]] = AIR_HU  # padding lies below the range, as in DICOM
    return NiftiScan(Volume(_upright(planes, placement, AIR_HU), placement.spacing_mm), placement)


def read_mask(path: Path, name: str, image: NiftiScan) -> npt.NDArray[np.int16]:
    """Read the mask of an image: (Z, Y, X) label values on the image's voxels.

    Raises:
        BadScan: it cannot be read, or has another grid than the image.
    """
    planes, placement = _read(path, name)
    expected = image.volume.hu.shape
    if planes.shape != expected:
        raise BadScan(name, ScanFault.GEOMETRY, f"mask of {planes.shape} voxels (z, y, x); the image has {expected}")
    if not np.allclose(placement.spacing_mm, image.volume.spacing_mm, rtol=SPACING_RTOL):
        raise BadScan(
            name,
            ScanFault.GEOMETRY,
            f"mask with spacing {_millimetres(placement)} (z, y, x); the image has {_millimetres(image.placement)}",
        )
    if not np.array_equal(placement.slice_indices, image.placement.slice_indices):
        raise BadScan(name, ScanFault.GEOMETRY, "mask and image run in opposite directions")
    return np.rint(_upright(planes, placement, 0.0)).astype(np.int16)


def _read(path: Path, name: str) -> tuple[Planes, Placement]:
    """Read a file: (Z, Y, X) float32 with z to the head, y to the back, x to the left."""
    data, affine = _decoded(path, name)
    orientation = _orientation(affine, name)
    turned = apply_orientation(data, orientation)  # type: ignore[no-untyped-call]  # (X, Y, Z) of RAS+
    affine = affine @ inv_ornt_aff(orientation, data.shape)  # type: ignore[no-untyped-call]
    planes = np.ascontiguousarray(turned[::-1, ::-1].transpose(2, 1, 0))  # left and back instead of right and front
    return planes, _placement(affine, orientation, data.shape, name)


def _decoded(path: Path, name: str) -> tuple[Planes, npt.NDArray[np.float64]]:
    image = _attempt(lambda: nibabel.load(path), name)
    if not isinstance(image, SpatialImage) or image.affine is None:
        raise BadScan(name, ScanFault.UNDECODABLE, f"{type(image).__name__}; expected a NIfTI volume")
    data: Any = _attempt(lambda: np.asanyarray(image.dataobj), name)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]  # a fourth axis of length one holds nothing
    if data.ndim != 3 or data.dtype.kind not in "iuf":
        raise BadScan(
            name, ScanFault.UNDECODABLE, f"{data.shape} voxels of {data.dtype}; expected three axes of plain numbers"
        )
    numbers = data.astype(np.float32)
    bad = int(np.count_nonzero(~np.isfinite(numbers)))
    if bad:
        raise BadScan(name, ScanFault.NOT_FINITE, f"{bad} of {numbers.size} voxels are NaN or infinite")
    return numbers, np.asarray(image.affine, np.float64)


def _attempt(action: Callable[[], Any], name: str) -> Any:
    try:
        return action()
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise BadScan(name, ScanFault.UNDECODABLE, f"{type(error).__name__}; expected a whole NIfTI file") from error


def _orientation(affine: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
    usable = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9
    if not usable:
        raise BadScan(name, ScanFault.GEOMETRY, "the affine names no three directions; expected a qform or sform")
    return np.asarray(io_orientation(affine), np.float64)  # type: ignore[no-untyped-call]


def _placement(
    affine: npt.NDArray[np.float64], orientation: npt.NDArray[np.float64], shape: tuple[int, ...], name: str
) -> Placement:
    """Measure spacing and shear.

    Args:
        affine: (4, 4) of the turned file, to millimetres in RAS+.
        orientation: (3, 2) how it was turned.
        shape: of the file, before it was turned.
        name: of the scan.
    """
    columns = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3] @ np.diag([-1.0, -1.0, 1.0])  # x, y and z steps in LPS
    step_x, step_y, step_z = columns.T
    x_mm, y_mm = float(np.linalg.norm(step_x)), float(np.linalg.norm(step_y))
    right, down = step_x / x_mm, step_y / y_mm
    if abs(float(right @ down)) > ORIENTATION_ATOL:
        raise BadScan(name, ScanFault.GEOMETRY, "rows and columns are not perpendicular")
    normal = np.cross(right, down)
    tilt = float(np.degrees(np.arccos(np.clip(normal[2], -1.0, 1.0))))
    if tilt > MAX_TILT_DEGREES:
        raise BadScan(name, ScanFault.GEOMETRY, f"{tilt:.0f} degrees from axial; at most {MAX_TILT_DEGREES:.0f}")
    z_mm = float(step_z @ normal)
    along_file = orientation[2, 0] == 2  # the file's third axis runs along the body
    indices = np.arange(shape[2] if along_file else 0)[:: int(orientation[2, 1])]
    return Placement((z_mm, y_mm, x_mm), (float(step_z @ down) / y_mm, float(step_z @ right) / x_mm), indices)


def _upright(planes: Planes, placement: Placement, outside: float) -> Planes:
    """Move each slice so that pixels above each other lie on one normal, to the nearest pixel."""
    steps = np.arange(len(planes)) - len(planes) // 2
    rows = np.rint(steps * placement.shear[0]).astype(int)
    columns = np.rint(steps * placement.shear[1]).astype(int)
    if not rows.any() and not columns.any():
        return planes
    moves = zip(planes, rows, columns, strict=True)
    return np.stack([shifted(plane, int(down), int(right), outside) for plane, down, right in moves])


def _millimetres(placement: Placement) -> str:
    return " x ".join(f"{length:.2f}" for length in placement.spacing_mm) + " mm"
