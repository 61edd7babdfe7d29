"""How far apart two outlines lie: Hausdorff distance (95th percentile) and surface Dice, in one slab or in a volume.

Reference:
    Nikolov S. et al., Clinically applicable segmentation of head and neck anatomy, J Med Internet Res 2021
    (surface Dice at a tolerance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

BoolField = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from each surface voxel of one region to the other's surface, mm; empty where a region is empty."""

    found_to_truth_mm: npt.NDArray[np.float64]
    truth_to_found_mm: npt.NDArray[np.float64]

    @property
    def hausdorff_95_mm(self) -> float:
        """The larger of both 95th percentiles; nan where a region is empty."""
        if not len(self.found_to_truth_mm) or not len(self.truth_to_found_mm):
            return float("nan")
        return float(max(np.percentile(self.found_to_truth_mm, 95), np.percentile(self.truth_to_found_mm, 95)))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Give the share of both surfaces that lies within `tolerance_mm` of the other; 0 where one is empty."""
        total = len(self.found_to_truth_mm) + len(self.truth_to_found_mm)
        if not len(self.found_to_truth_mm) or not len(self.truth_to_found_mm):
            return 0.0
        near = (self.found_to_truth_mm <= tolerance_mm).sum() + (self.truth_to_found_mm <= tolerance_mm).sum()
        return float(near / total)


def surface_distances(found: BoolField, truth: BoolField, spacing_mm: tuple[float, ...]) -> SurfaceDistances:
    """Measure two regions of the same grid, of any number of axes."""
    found_surface, truth_surface = _surface(found), _surface(truth)
    if not found_surface.any() or not truth_surface.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    to_truth = ndimage.distance_transform_edt(~truth_surface, sampling=spacing_mm)
    to_found = ndimage.distance_transform_edt(~found_surface, sampling=spacing_mm)
    return SurfaceDistances(to_truth[found_surface], to_found[truth_surface])


def _surface(region: BoolField) -> BoolField:
    surface: BoolField = region & ~ndimage.binary_erosion(region)
    return surface
