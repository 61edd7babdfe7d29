"""Blood pasted into real, bleed-free heads: real anatomy and noise with voxel truth.

Brain, fluid and skull are estimated on the model's grid; where that fails (face, skull base) nothing is pasted. The
bleeds are grown by the code that grows them in phantoms.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.bleeds import Bleed, grow_bleed
from training.head_spaces import BoolField, FloatField, HeadSpaces
from training.labelled_scan import LabelledSlabs
from training.phantom import PlannedBleed
from training.smooth_noise import smooth_noise

BONE_HU = 180  # thin bone averaged over 5 mm stays above it, calcified vessels rarely close a ring
TISSUE_HU = (-5, 90)
SMALLEST_AREA_MM2 = 3500.0  # of the inside of the skull in a slab: smaller is face, neck or the last of the vertex
TISSUE_SHARE = 0.9  # of that inside: less is face with air and bone
VENTRICLE_DEPTH_MM = 22.0
FLUID_HU = 18.0


def paste_blood(
    slabs: LabelledSlabs, spaces: HeadSpaces, planned: tuple[PlannedBleed, ...], rng: np.random.Generator
) -> LabelledSlabs:
    """Give a copy of a bleed-free head with the planned bleeds; unchanged where no inside of a skull is found.

    Args:
        slabs: the head on the model's grid.
        spaces: of that head, from `estimate_spaces`.
        planned: the bleeds.
        rng: decides their places and shapes.
    """
    if not spaces.brain.any():
        return slabs
    bleeds = [grow_bleed(spaces, plan.kind, plan.volume_ml, rng) for plan in planned]
    hu = slabs.hu.astype(np.float32)
    blood = np.zeros(hu.shape, np.float32)
    for bleed in bleeds:
        hu, share = _pasted(hu, bleed, rng)
        blood = np.maximum(blood, share)
    return replace(
        slabs,
        hu=np.rint(hu).astype(np.int16),
        blood=np.rint(blood * 255).astype(np.uint8),
        kinds=tuple(sorted({bleed.kind.value for bleed in bleeds})),
        source=f"{slabs.source}, pasted",
    )


def estimate_spaces(slabs: LabelledSlabs) -> HeadSpaces:
    """Estimate where brain, fluid and skull lie in a real head."""
    pixel_mm2 = slabs.spacing_mm[1] * slabs.spacing_mm[2]
    smooth = ndimage.gaussian_filter(slabs.hu.astype(np.float32), (0, 1.0, 1.0))
    inside = np.stack([_inside_skull(plane, pixel_mm2) for plane in slabs.hu])
    depth = np.stack([ndimage.distance_transform_edt(plane, sampling=slabs.spacing_mm[1:]) for plane in inside])
    fluid = inside & (smooth < FLUID_HU)
    ventricles = ndimage.binary_opening(fluid & (depth > VENTRICLE_DEPTH_MM), np.ones((1, 2, 2), bool))
    x, y, z = _head_coordinates(inside, slabs.spacing_mm)
    return HeadSpaces(
        x_mm=x,
        y_mm=y,
        z_mm=z,
        depth_mm=depth.astype(np.float32),
        intracranial=inside,
        brain=inside & ~fluid & (smooth < 50),
        ventricles=ventricles,
        csf=fluid & ~ventricles,
        spacing_mm=slabs.spacing_mm,
    )


def _inside_skull(plane: npt.NDArray[np.int16], pixel_mm2: float) -> BoolField:
    """Find what a closed ring of bone surrounds in one slab; nothing where there is no such ring."""
    bone = ndimage.binary_closing(plane > BONE_HU, np.ones((5, 5), bool))
    hole = ndimage.binary_fill_holes(bone) & ~bone
    labels, count = ndimage.label(ndimage.binary_opening(hole, np.ones((3, 3), bool)))
    if count == 0:
        return np.zeros(plane.shape, bool)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    tissue = (plane > TISSUE_HU[0]) & (plane < TISSUE_HU[1])
    if largest.sum() * pixel_mm2 < SMALLEST_AREA_MM2 or tissue[largest].mean() < TISSUE_SHARE:
        return np.zeros(plane.shape, bool)
    inside: BoolField = largest & tissue
    return inside


def _head_coordinates(
    inside: BoolField, spacing_mm: tuple[float, float, float]
) -> tuple[FloatField, FloatField, FloatField]:
    """Turn the grid to the head: the long axis of the inside runs from front to back."""
    if not inside.any():
        zero = np.zeros(inside.shape, np.float32)
        return zero, zero, zero
    _, ys, xs = np.nonzero(inside)
    points = np.stack([xs * spacing_mm[2], ys * spacing_mm[1]])
    centre = points.mean(axis=1)
    _, axes = np.linalg.eigh(np.cov(points[:, ::7]))
    back = axes[:, 1] * np.sign(axes[1, 1] or 1.0)  # (x, y) of the long axis
    dy = np.arange(inside.shape[1])[None, :, None] * spacing_mm[1] - centre[1]
    dx = np.arange(inside.shape[2])[None, None, :] * spacing_mm[2] - centre[0]
    widest = inside.sum(axis=(1, 2)).argmax()
    z = (np.arange(len(inside)) - widest)[:, None, None] * spacing_mm[0] + 5.0
    x = dx * back[1] - dy * back[0]
    y = dx * back[0] + dy * back[1]
    shape = inside.shape
    return tuple(np.broadcast_to(field, shape).astype(np.float32) for field in (x, y, z))  # type: ignore[return-value]


def _pasted(hu: FloatField, bleed: Bleed, rng: np.random.Generator) -> tuple[FloatField, FloatField]:
    """Mix blood into `hu` with soft edges, keeping the scan's own noise."""
    share = ndimage.gaussian_filter(bleed.mask.astype(np.float32), (0.35, 0.7, 0.7))
    texture = hu - ndimage.gaussian_filter(hu, (0, 1.2, 1.2))
    clots = 3.5 * smooth_noise(rng, hu.shape, (8, 20, 20))
    blood = bleed.blood_hu + clots + np.clip(texture, -12, 12)
    share *= hu < BONE_HU  # bone stays bone
    darker = hu - 8.0 * bleed.rim
    return darker * (1 - share) + blood * share, share
