"""A study's probability map, kept beside its images for research: written by the worker, drawn by the worklist.

It is kept only with `worklist.research_mode`, below `maps/` in the storage folder, under hashes like the images. It
shows where the model suspects blood; a triage list must not steer the eye, so it stands on no list and leaves the
system by no door.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from triage.errors import StoreError
from triage.volume import Slabs, Volume, head_centre

MAPS = Path("maps")
CERTAIN = 255  # what a probability of 1 is kept as


@dataclass(frozen=True)
class ProbabilityMap:
    """What a model gave for each voxel, and where it lies in the volume.

    Attributes:
        probability: (Z, Y, X) uint8, 0 to 255 for 0 to 1, one plane a slab.
        centre_px: (y, x), the middle of the map in pixels of the volume.
        extent_mm: (y, x) of a plane of the map.
        slice_range: (Z, 2) first and last slice index of the volume that each slab was made of.
    """

    probability: npt.NDArray[np.uint8]
    centre_px: tuple[float, float]
    extent_mm: tuple[float, float]
    slice_range: npt.NDArray[np.int32]

    def on_slice(
        self, slice_index: int, shape: tuple[int, int], spacing_mm: tuple[float, float]
    ) -> npt.NDArray[np.uint8]:
        """Give the map on one slice of the volume, (Y, X) uint8; zero where the model saw nothing.

        Args:
            slice_index: from 0, lowest first.
            shape: (rows, columns) of the slice.
            spacing_mm: (y, x) of its pixels.
        """
        plane = Image.fromarray(self.probability[self._slab_of(slice_index)])
        # edges in pixels of the slice; the reverse of the resampling in `triage.volume`
        height, width = (extent / spacing for extent, spacing in zip(self.extent_mm, spacing_mm, strict=True))
        down, across = plane.height / height, plane.width / width
        top, left = self.centre_px[0] + 0.5 - height / 2, self.centre_px[1] + 0.5 - width / 2
        drawn = plane.transform(
            (shape[1], shape[0]),
            Image.Transform.AFFINE,
            (across, 0.0, -left * across, 0.0, down, -top * down),
            resample=Image.Resampling.BILINEAR,
        )
        return np.asarray(drawn, np.uint8)

    def _slab_of(self, slice_index: int) -> int:
        middles = self.slice_range.mean(axis=1)
        return int(np.abs(middles - slice_index).argmin())


def map_of(probability: npt.NDArray[np.float32], volume: Volume, slabs: Slabs) -> ProbabilityMap:
    """Give the map to keep of what a model gave, (Z, Y, X) float32, for the slabs of a volume."""
    _, rows, columns = probability.shape
    return ProbabilityMap(
        probability=np.rint(np.clip(probability, 0, 1) * CERTAIN).astype(np.uint8),
        centre_px=head_centre(volume),
        extent_mm=(rows * slabs.spacing_mm[1], columns * slabs.spacing_mm[2]),
        slice_range=slabs.slice_range,
    )


def map_path(study_instance_uid: str, revision: int) -> Path:
    """Give the place, below the storage folder, of the map of a study at one revision."""
    study = hashlib.sha256(study_instance_uid.encode()).hexdigest()
    return MAPS / study[:2] / f"{study[2:34]}-{revision}.npz"


def write_map(path: Path, kept: ProbabilityMap) -> None:
    """Write a map, whole or not at all.

    Raises:
        OSError: the disk takes no data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                probability=kept.probability,
                centre_px=np.array(kept.centre_px),
                extent_mm=np.array(kept.extent_mm),
                slice_range=kept.slice_range,
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_map(path: Path) -> ProbabilityMap:
    """Read a map.

    Raises:
        StoreError: it is gone or broken.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            centre, extent = kept["centre_px"], kept["extent_mm"]
            return ProbabilityMap(
                probability=kept["probability"],
                centre_px=(float(centre[0]), float(centre[1])),
                extent_mm=(float(extent[0]), float(extent[1])),
                slice_range=kept["slice_range"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"The probability map cannot be read: {type(error).__name__}.") from error
