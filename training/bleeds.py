"""Bleeds of five kinds, each grown in the space where its kind lies until it has its volume.

A kind is a level field, low where the blood goes first, and a space that it may fill. The voxels of lowest level
that together make the volume are the bleed, so its truth is exact to a voxel. The same code draws bleeds into
phantoms and pastes them into real, bleed-free heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from training.head_spaces import BoolField, FloatField, HeadSpaces
from training.smooth_noise import smooth_noise

LOBAR_SITES_MM = (  # x (mirrored at random), y, z in head coordinates; where spontaneous and contused blood is common
    (26, -2, 8),  # putamen
    (12, 10, 8),  # thalamus
    (30, -45, 28),  # frontal lobe
    (24, -58, -8),  # frontal pole, contusion
    (35, 28, 40),  # parietal lobe
    (46, -8, -18),  # temporal lobe
    (22, 56, 14),  # occipital lobe
    (22, 46, -36),  # cerebellum
)
EDH_ASPECT = (0.30, 0.50)  # thickness over radius: a lens
SDH_ASPECT = (0.10, 0.25)  # a crescent
SDH_THINNEST_MM = 6.0  # in its middle: thinner ones drown in the skull, whose edge a 5 mm slice smears


class BleedKind(StrEnum):
    """The five kinds of intracranial haemorrhage that CT readers name."""

    IVH = "IVH"  # intraventricular
    IPH = "IPH"  # intraparenchymal
    SAH = "SAH"  # subarachnoid
    EDH = "EDH"  # epidural
    SDH = "SDH"  # subdural


@dataclass(frozen=True)
class Bleed:
    """One bleed: its kind, its voxels, its blood in HU and the rim of oedema about it."""

    kind: BleedKind
    mask: BoolField
    rim: BoolField
    blood_hu: float

    def volume_ml(self, spaces: HeadSpaces) -> float:
        """Volume of the voxels, mL."""
        return float(self.mask.sum()) * spaces.voxel_ml


def grow_bleed(spaces: HeadSpaces, kind: BleedKind, volume_ml: float, rng: np.random.Generator) -> Bleed:
    """Grow one bleed of `kind`; smaller than `volume_ml` only where its space holds no more."""
    level, space = _LEVELS[kind](spaces, volume_ml, rng)
    lumps = smooth_noise(rng, level.shape, (6, 14, 14))
    level = level * (1.0 + 0.18 * lumps)
    mask = _fill(level, space, volume_ml / spaces.voxel_ml)
    rim = _rim(level, mask, spaces) if kind is BleedKind.IPH else np.zeros_like(mask)
    low, high = (48.0, 66.0) if kind is BleedKind.SAH else (54.0, 80.0)  # thin blood is mixed with fluid
    return Bleed(kind, mask, rim, float(rng.uniform(low, high)))


def _fill(level: FloatField, space: BoolField, voxels: float) -> BoolField:
    inside = np.flatnonzero(space)
    count = min(len(inside), max(1, round(voxels)))
    mask = np.zeros(space.shape, bool)
    if len(inside):
        levels = level.ravel()[inside]
        mask.ravel()[inside[np.argpartition(levels, count - 1)[:count]]] = True
    return mask


def _rim(level: FloatField, mask: BoolField, spaces: HeadSpaces) -> BoolField:
    """Oedema: what of the brain would have bled next."""
    edge = float(level[mask].max()) if mask.any() else 0.0
    return spaces.brain & ~mask & (level < 1.22 * edge)


def _parenchymal(spaces: HeadSpaces, _volume_ml: float, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    site = np.array(LOBAR_SITES_MM[rng.integers(len(LOBAR_SITES_MM))], float)
    site[0] *= rng.choice((-1, 1))
    centre = _nearest(spaces, spaces.brain & (spaces.depth_mm > 6.0), site + rng.normal(0, 6, 3))
    stretch = rng.uniform(0.75, 1.35, 3)
    level = _distance_mm(spaces, centre, stretch)
    return level, spaces.intracranial & (spaces.depth_mm > 2.0)


def _ventricular(spaces: HeadSpaces, _volume_ml: float, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    centre = _nearest(spaces, spaces.ventricles, np.array((rng.choice((-1, 1)) * 20.0, 28.0, 10.0)))
    if rng.random() < 0.5:  # layered: heavy blood settles at the back of a patient who lies face up
        back = float(spaces.y_mm[spaces.ventricles].max(initial=0.0))
        level = back + 1.0 - spaces.y_mm
        one_side = np.sign(spaces.x_mm) == np.sign(centre[0])
        return np.where(one_side, level, level + 0.1).astype(np.float32), spaces.ventricles
    return _distance_mm(spaces, centre, np.array((1.0, 0.6, 0.8))), spaces.ventricles


def _subarachnoid(spaces: HeadSpaces, _volume_ml: float, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    sites = ((0.0, -12.0, -24.0), (44.0, -12.0, 4.0), (40.0, 10.0, 45.0), (30.0, -40.0, 40.0))
    site = np.array(sites[rng.integers(len(sites))]) * (rng.choice((-1, 1)), 1, 1)
    centre = _nearest(spaces, spaces.csf, site + rng.normal(0, 5, 3))
    return _distance_mm(spaces, centre, np.ones(3)), spaces.csf


def _epidural(spaces: HeadSpaces, volume_ml: float, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    aspect = rng.uniform(*EDH_ASPECT)
    radius_mm = (2000.0 * volume_ml / (np.pi * aspect)) ** (1 / 3)  # a paraboloid's cap: pi r^2 t / 2
    return _cap(spaces, radius_mm, 2, rng)


def _subdural(spaces: HeadSpaces, volume_ml: float, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    thick_enough = (np.pi * SDH_THINNEST_MM**3 / (1500.0 * volume_ml)) ** 0.5
    aspect = max(rng.uniform(*SDH_ASPECT), thick_enough)
    radius_mm = (1500.0 * volume_ml / (np.pi * aspect)) ** (1 / 3)  # flatter, fourth power: 2 pi r^2 t / 3
    if rng.random() < 0.2:
        return _parafalcine(spaces, radius_mm, rng)
    level, space = _cap(spaces, radius_mm, 4, rng)
    return level, space & (np.abs(spaces.x_mm) > 1.5)  # the falx holds subdural blood to its side


def _cap(spaces: HeadSpaces, radius_mm: float, power: int, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    """Blood under the skull: thickest in the middle, ending at `radius_mm` from it along the bone."""
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array((np.cos(angle) * 70, np.sin(angle) * 88, rng.uniform(-20, 55)))
    surface = spaces.intracranial & (spaces.depth_mm < 4.0) & (np.abs(spaces.x_mm) > 5.0)
    centre = _nearest(spaces, surface, direction)
    along = np.minimum(_distance_mm(spaces, centre, np.ones(3)) / radius_mm, 0.999)
    level = np.maximum(spaces.depth_mm, 0.05) / (1.0 - along**power)
    one_side = np.sign(spaces.x_mm) == np.sign(centre[0])
    near = along < 0.98
    return level.astype(np.float32), spaces.intracranial & one_side & near


def _parafalcine(spaces: HeadSpaces, radius_mm: float, rng: np.random.Generator) -> tuple[FloatField, BoolField]:
    side = rng.choice((-1, 1))
    midline = spaces.intracranial & (np.abs(spaces.x_mm) < 4.0) & (spaces.depth_mm < 30.0) & (spaces.z_mm > 20.0)
    centre = _nearest(spaces, midline, np.array((0.0, rng.choice((-50.0, 50.0)), 45.0)))
    along = np.minimum(_distance_mm(spaces, centre, np.array((0.2, 1.0, 1.0))) / radius_mm, 0.999)
    off_midline_mm = spaces.x_mm * side
    level = np.maximum(off_midline_mm, 0.05) / (1.0 - along**4)
    return level.astype(np.float32), spaces.intracranial & (off_midline_mm > 0.5) & (along < 0.98)


def _distance_mm(spaces: HeadSpaces, centre: FloatField, stretch: FloatField) -> FloatField:
    x, y, z = centre
    squared = (
        ((spaces.x_mm - x) / stretch[0]) ** 2
        + ((spaces.y_mm - y) / stretch[1]) ** 2
        + ((spaces.z_mm - z) / stretch[2]) ** 2
    )
    distance: FloatField = np.sqrt(squared, dtype=np.float32)
    return distance


def _nearest(spaces: HeadSpaces, space: BoolField, wanted_mm: FloatField) -> FloatField:
    """Give the point of `space` nearest to `wanted_mm` (x, y, z); of the whole inside where the space is empty."""
    inside = np.flatnonzero(space if space.any() else spaces.intracranial)
    points = np.stack([field.ravel()[inside] for field in (spaces.x_mm, spaces.y_mm, spaces.z_mm)], axis=1)
    nearest: FloatField = points[((points - wanted_mm) ** 2).sum(axis=1).argmin()]
    return nearest


_LEVELS: dict[BleedKind, Callable[[HeadSpaces, float, np.random.Generator], tuple[FloatField, BoolField]]] = {
    BleedKind.IVH: _ventricular,
    BleedKind.IPH: _parenchymal,
    BleedKind.SAH: _subarachnoid,
    BleedKind.EDH: _epidural,
    BleedKind.SDH: _subdural,
}
