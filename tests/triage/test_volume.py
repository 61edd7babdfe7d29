"""Volumes and slabs: numbers that can be worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import head_hu
from triage.volume import AIR_HU, Grid, Volume, head_centre, head_extent_mm, mask_on_grid, slab_weights, slabs_of
from triage.volume import with_context as context_of


def head(slices: int = 32, spacing_mm: float = 5.0, *, size: int = 128, pixel_mm: float = 1.8) -> Volume:
    hu = head_hu(slices, size, size, pixel_mm=(pixel_mm, pixel_mm))
    return Volume(hu, (spacing_mm, pixel_mm, pixel_mm))


def test_slices_near_the_slab_thickness_are_used_as_they_are() -> None:
    slabs = slabs_of(head(slices=30, spacing_mm=4.8), Grid())

    assert slabs.hu.shape == (30, 192, 192)
    assert slabs.spacing_mm == (4.8, 1.25, 1.25)


def test_thin_slices_are_averaged_into_slabs() -> None:
    volume = head(slices=128, spacing_mm=1.25)
    volume.hu[::2] += 10  # 45 HU on average in each slab of four slices, up to the edges' share

    slabs = slabs_of(volume, Grid())

    assert slabs.hu.shape[0] == 32
    assert slabs.spacing_mm[0] == 5.0
    assert slabs.hu[16, 96, 96] == 45


def test_slab_weights_share_each_slice_by_overlap() -> None:
    weights = slab_weights(4, 2.5, 5.0)

    assert weights is not None
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])


@pytest.mark.parametrize("spacing_mm", [0.5, 0.625, 1.0, 1.25, 2.0, 3.0, 7.0])
def test_slab_weights_sum_to_one_at_any_spacing(spacing_mm: float) -> None:
    weights = slab_weights(round(160 / spacing_mm), spacing_mm, 5.0)

    assert weights is not None
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


def test_a_region_keeps_its_volume_on_the_grid() -> None:
    volume = head()
    mask = np.zeros(volume.hu.shape, bool)
    mask[10:14, 50:70, 50:70] = True  # 4 x 20 x 20 voxels of 5 x 1.8 x 1.8 mm = 25.92 mL

    share = mask_on_grid(mask, volume, Grid())

    voxel_ml = 5.0 * 1.25 * 1.25 / 1000
    assert share.sum() * voxel_ml == pytest.approx(25.92, rel=0.01)


def test_head_stands_in_the_middle_of_the_grid_wherever_it_lay() -> None:
    volume = head()
    moved = Volume(np.roll(volume.hu, (9, -12), axis=(1, 2)), volume.spacing_mm)

    centred, also_centred = slabs_of(volume, Grid()), slabs_of(moved, Grid())

    assert head_centre(moved) == pytest.approx((63.5 + 9, 63.5 - 12), abs=1.0)
    assert np.abs(centred.hu.astype(int) - also_centred.hu).mean() < 20  # sub-pixel shifts at the skull only


def test_head_extent_is_measured_in_mm() -> None:
    assert head_extent_mm(head()) == pytest.approx((190, 150), abs=15)  # between percentiles, so a little less
    assert head_extent_mm(Volume(np.full((12, 64, 64), AIR_HU, np.float32), (5.0, 3.0, 3.0))) == (0.0, 0.0)


def test_outside_of_the_image_is_air() -> None:
    slabs = slabs_of(head(size=96), Grid())  # 173 mm of image in a grid of 240 mm

    assert slabs.hu[16, 0, 0] == AIR_HU
    assert slabs.hu[16, 96, 96] == 40


def test_values_beyond_twelve_bits_are_held_at_the_ends() -> None:
    volume = head()
    volume.hu[5, 60:68, 60:68] = 30000  # a metal clip in an extended range

    assert slabs_of(volume, Grid()).hu.max() == 3071


def test_context_repeats_the_outermost_slabs() -> None:
    hu = np.arange(3, dtype=np.int16)[:, None, None] * np.ones((3, 2, 2), np.int16)

    channels = context_of(hu, 1)

    assert channels.shape == (3, 2, 2, 3)
    assert channels[:, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
