"""The record that every source of scans gives: a volume, what is known about blood in it, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.bleeds import BleedKind
from training.head_spaces import BoolField
from triage.volume import Grid, Volume, mask_on_grid, slabs_of


@dataclass(frozen=True)
class LabelledScan:
    """One scan with its truth.

    Attributes:
        volume: HU.
        mask: (Z, Y, X) True where there is blood.
        slice_labels: (Z, kinds) True where the slice shows the kind, in the order of `BleedKind`.
        patient: key of the patient within the source; splits go by it.
        source: name of the source.
        fold: which part of a split by patient it belongs to; -1 where the source has none.
    """

    volume: Volume
    mask: BoolField
    slice_labels: BoolField
    patient: str
    source: str
    fold: int = -1

    @property
    def bleed(self) -> bool:
        """Whether any slice shows blood, by mask or by label."""
        return bool(self.mask.any() or self.slice_labels.any())


@dataclass(frozen=True)
class LabelledSlabs:
    """A scan on the model's grid, as it is stored for training.

    Attributes:
        hu: (Z, Y, X) int16 HU.
        blood: (Z, Y, X) uint8, 255 where the whole voxel is blood.
        kinds: names of the kinds of blood in the scan.
        voxel_ml: volume of a voxel, mL.
    """

    hu: npt.NDArray[np.int16]
    blood: npt.NDArray[np.uint8]
    kinds: tuple[str, ...]
    patient: str
    source: str
    fold: int
    voxel_ml: float
    spacing_mm: tuple[float, float, float]

    @property
    def bleed(self) -> bool:
        """Whether the scan has blood."""
        return bool(self.kinds)


def on_grid(scan: LabelledScan, grid: Grid) -> LabelledSlabs:
    """Cut a scan to the model's grid with the code that the worker uses."""
    slabs = slabs_of(scan.volume, grid)
    share = mask_on_grid(scan.mask, scan.volume, grid)
    kinds = [
        kind.value for kind, shown in zip(BleedKind, np.any(scan.slice_labels, axis=0).tolist(), strict=True) if shown
    ]
    return LabelledSlabs(
        hu=slabs.hu,
        blood=np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8),
        kinds=tuple(kinds),
        patient=scan.patient,
        source=scan.source,
        fold=scan.fold,
        voxel_ml=slabs.voxel_ml,
        spacing_mm=slabs.spacing_mm,
    )
