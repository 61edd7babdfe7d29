"""The record that every source of scans gives: a volume, what is known about blood in it, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from training.bleeds import BleedKind
from training.head_spaces import BoolField
from triage.volume import Grid, Slabs, Volume, mask_on_grid, slabs_of

MOSTLY = 128  # of 255: more than half of a voxel is blood


class LabelStrength(StrEnum):
    """How finely a source says where blood is."""

    VOXELS = "voxels"  # a mask
    SLICES = "slices"  # which slices show it
    STUDY = "study"  # whether the study shows it


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
        strength: what of this is truth: below VOXELS `mask` is empty, and at STUDY `slice_labels` too.
        study_bleed: what readers said of the whole study.
        study_kinds: kinds that they named.
        licence: under which the source gives it.
    """

    volume: Volume
    mask: BoolField
    slice_labels: BoolField
    patient: str
    source: str
    fold: int = -1
    strength: LabelStrength = LabelStrength.VOXELS
    study_bleed: bool = False
    study_kinds: tuple[BleedKind, ...] = ()
    licence: str = ""

    @property
    def bleed(self) -> bool:
        """Whether the scan shows blood, by mask or by label."""
        return bool(self.mask.any() or self.slice_labels.any() or self.study_bleed)


@dataclass(frozen=True)
class LabelledSlabs:
    """A scan on the model's grid, as it is stored for training.

    Attributes:
        hu: (Z, Y, X) int16 HU.
        blood: (Z, Y, X) uint8, 255 where the whole voxel is blood.
        kinds: names of the kinds of blood in the scan.
        voxel_ml: volume of a voxel, mL.
        strength: what of this is truth; below VOXELS `blood` is empty.
        slab_labels: (Z,) whether readers saw blood in each slab; only at SLICES.
        study_bleed: what readers said of the whole study.
    """

    hu: npt.NDArray[np.int16]
    blood: npt.NDArray[np.uint8]
    kinds: tuple[str, ...]
    patient: str
    source: str
    fold: int
    voxel_ml: float
    spacing_mm: tuple[float, float, float]
    strength: LabelStrength = LabelStrength.VOXELS
    slab_labels: BoolField = field(default_factory=lambda: np.zeros(0, np.bool_))
    study_bleed: bool = False

    @property
    def slab_bleed(self) -> BoolField:
        """Whether each slab shows blood: (Z,); empty where only the study was labelled."""
        if self.strength is LabelStrength.VOXELS:
            shown: BoolField = np.any(self.blood >= MOSTLY, axis=(1, 2))
            return shown
        return self.slab_labels

    @property
    def bleed(self) -> bool:
        """Whether the scan has blood."""
        return bool(self.kinds or self.study_bleed or self.slab_labels.any() or self.blood.any())


def on_grid(scan: LabelledScan, grid: Grid) -> LabelledSlabs:
    """Cut a scan to the model's grid with the code that the worker uses."""
    slabs = slabs_of(scan.volume, grid)
    share = mask_on_grid(scan.mask, scan.volume, grid)
    shown = np.any(scan.slice_labels, axis=0)
    kinds = [kind for kind, by_slice in zip(BleedKind, shown, strict=True) if by_slice or kind in scan.study_kinds]
    return LabelledSlabs(
        hu=slabs.hu,
        blood=np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8),
        kinds=tuple(kind.value for kind in kinds),
        patient=scan.patient,
        source=scan.source,
        fold=scan.fold,
        voxel_ml=slabs.voxel_ml,
        spacing_mm=slabs.spacing_mm,
        strength=scan.strength,
        slab_labels=_slab_labels(scan, slabs),
        study_bleed=scan.study_bleed,
    )


def _slab_labels(scan: LabelledScan, slabs: Slabs) -> BoolField:
    """Say which slabs hold a slice that is labelled with blood: (Z,)."""
    if scan.strength is not LabelStrength.SLICES:
        return np.zeros(0, np.bool_)
    slices: BoolField = np.any(scan.slice_labels, axis=1)
    return np.array([slices[first : last + 1].any() for first, last in slabs.slice_range], np.bool_)
