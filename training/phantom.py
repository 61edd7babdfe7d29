"""Phantoms: head CTs that no patient lay down for, with blood whose every voxel is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.bleeds import Bleed, BleedKind, grow_bleed
from training.head_drawing import draw_head, random_shape
from training.head_spaces import BoolField, FloatField
from training.smooth_noise import smooth_noise
from triage.volume import HU_RANGE, Volume

FIELD_OF_VIEW_MM = 250.0
DRAWN_SIZE = 192  # pixels a side that anatomy is drawn on, then enlarged: about a scanner's sharpness in soft tissue
THICK_MM = 2.0  # slices thicker than this are drawn as two halves, so that edges show partial volume
BLEED_ML = (2.0, 60.0)  # drawn log-uniformly


@dataclass(frozen=True)
class Phantom:
    """One head with its truth.

    Attributes:
        volume: HU, slices from the neck up.
        mask: (Z, Y, X) True where more than half of the voxel is blood.
        kinds: kinds of the bleeds, empty for a bleed-free head.
        seed: what it was drawn from.
    """

    volume: Volume
    mask: BoolField
    kinds: tuple[BleedKind, ...]
    seed: int

    @property
    def volume_ml(self) -> float:
        """Volume of all blood, mL."""
        return float(self.mask.sum()) * float(np.prod(self.volume.spacing_mm)) / 1000.0


@dataclass(frozen=True)
class PlannedBleed:
    """A bleed to be drawn."""

    kind: BleedKind
    volume_ml: float


def plan_bleeds(rng: np.random.Generator, volume_ml: tuple[float, float] = BLEED_ML) -> tuple[PlannedBleed, ...]:
    """Plan one bleed, two in a quarter of heads, of kinds drawn evenly."""
    count = 2 if rng.random() < 0.25 else 1
    kinds = rng.choice(list(BleedKind), count, replace=False)
    low, high = np.log(volume_ml)
    return tuple(PlannedBleed(BleedKind(kind), float(np.exp(rng.uniform(low, high)))) for kind in kinds)


def make_phantom(
    seed: int,
    bleeds: Sequence[PlannedBleed] = (),
    *,
    slices: int = 32,
    slice_mm: float = 5.0,
    size: int = 512,
) -> Phantom:
    """Draw the head of `seed` with `bleeds`, as a scanner would give it.

    Args:
        seed: the same seed, bleeds and sizes give the same phantom.
        bleeds: none for a bleed-free head.
        slices: axial slices; 32 of 5 mm hold a head from the skull base to the vertex.
        slice_mm: thickness and distance of slices, mm.
        size: rows and columns.
    """
    rng = np.random.default_rng(seed)
    halves = 2 if slice_mm > THICK_MM else 1
    drawn = min(size, DRAWN_SIZE)
    z_mm = _heights_mm(slices * halves, slice_mm / halves)
    hu, spaces = draw_head(random_shape(rng), z_mm, FIELD_OF_VIEW_MM / drawn, drawn, rng)
    grown = [grow_bleed(spaces, bleed.kind, bleed.volume_ml, rng) for bleed in bleeds]
    share = _draw_blood(hu, grown, rng)
    hu, share = _averaged(hu, halves), _averaged(share, halves)
    hu, share = _enlarged(_blurred(hu), size), _enlarged(share, size)
    hu += _quantum_noise(hu.shape, rng)
    np.clip(np.rint(hu, out=hu), *HU_RANGE, out=hu)
    pixel_mm = FIELD_OF_VIEW_MM / size
    volume = Volume(hu, (slice_mm, pixel_mm, pixel_mm))
    return Phantom(volume, share > 0.5, tuple(bleed.kind for bleed in grown), seed)


def _heights_mm(count: int, step_mm: float) -> FloatField:
    """Heights of slice centres in head coordinates."""
    middle = 8.0  # the vertex is farther from the origin than the skull base
    return (middle + (np.arange(count) - (count - 1) / 2) * step_mm).astype(np.float32)


def _draw_blood(hu: FloatField, bleeds: Sequence[Bleed], rng: np.random.Generator) -> FloatField:
    """Draw the blood into `hu`; returns the share of each voxel that is blood, 0 or 1."""
    share = np.zeros(hu.shape, np.float32)
    for bleed in bleeds:
        clots = 3.5 * smooth_noise(rng, hu.shape, (8, 20, 20))
        hu[bleed.rim] -= 9.0
        hu[bleed.mask] = (bleed.blood_hu + clots)[bleed.mask]
        share[bleed.mask] = 1.0
    return share


def _averaged(field: FloatField, halves: int) -> FloatField:
    return field if halves == 1 else 0.5 * (field[0::2] + field[1::2])


def _blurred(hu: FloatField) -> FloatField:
    """The point spread of a soft-tissue kernel, about 0.6 mm standard deviation, in-plane."""
    blurred: FloatField = ndimage.gaussian_filter(hu, (0.0, 0.6, 0.6), truncate=2.5)
    return blurred


def _enlarged(field: FloatField, size: int) -> FloatField:
    """Enlarge each plane to `size` x `size` by linear interpolation, one matrix product an axis."""
    if field.shape[1] == size:
        return field
    weights = _linear_weights(field.shape[1], size)
    enlarged: FloatField = np.matmul(np.matmul(weights, field), weights.T)
    return enlarged


def _linear_weights(source: int, target: int) -> npt.NDArray[np.float32]:
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    left = np.minimum(at.astype(int), source - 2)
    weights = np.zeros((target, source), np.float32)
    weights[np.arange(target), left] = 1.0 - (at - left)
    weights[np.arange(target), left + 1] = at - left
    return weights


def _quantum_noise(shape: tuple[int, ...], rng: np.random.Generator) -> FloatField:
    """Noise of 2.5 to 5.5 HU, its grain about two pixels as filtered back projection leaves it."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = white + np.roll(white, 1, axis=2)
    grain += np.roll(grain, 1, axis=1)
    return grain * np.float32(rng.uniform(2.5, 5.5) / 2.0)  # the sum of four has twice the deviation
