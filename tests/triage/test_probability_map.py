"""Probability maps kept for research: where they lie on a slice, and how they are kept."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import head_hu
from triage.errors import StoreError
from triage.probability_map import map_of, map_path, read_map, write_map
from triage.volume import Grid, Volume, mask_on_grid, slabs_of


@pytest.mark.parametrize(("slice_mm", "slices"), [(5.0, 30), (1.25, 120)])
def test_map_lies_on_the_slice_where_the_model_saw_it(slice_mm, slices):
    spacing_mm = (slice_mm, 0.9, 0.9)
    volume = Volume(head_hu(slices, 256, 256, pixel_mm=spacing_mm[1:]), spacing_mm)
    blood = np.zeros(volume.hu.shape, np.bool_)
    blood[slices // 2 - 4 : slices // 2 + 4, 60:90, 140:180] = True
    slabs = slabs_of(volume, Grid())
    kept = map_of(mask_on_grid(blood, volume, Grid()), volume, slabs)

    drawn = kept.on_slice(slices // 2, (256, 256), spacing_mm[1:]) >= 128

    overlap = (drawn & blood[slices // 2]).sum() / (drawn | blood[slices // 2]).sum()
    assert overlap > 0.94  # of 30 x 40 pixels; shifted by one pixel it would be 0.94 at most


def test_map_comes_back_as_it_was_written(tmp_path):
    volume = Volume(head_hu(12), (5.0, 3.5, 3.5))
    slabs = slabs_of(volume, Grid(64, 64, (5.0, 3.5, 3.5)))
    written = map_of(np.full(slabs.hu.shape, 0.5, np.float32), volume, slabs)
    path = tmp_path / map_path("1.2.3", 2)

    write_map(path, written)
    read = read_map(path)

    assert (read.probability == 128).all()
    assert (read.centre_px, read.extent_mm) == (written.centre_px, (224.0, 224.0))
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert "1.2.3" not in str(map_path("1.2.3", 2))


@pytest.mark.parametrize("content", [None, b"", b"no map", b"PK\x03\x04broken"])
def test_broken_map_is_a_clear_error(tmp_path, content):
    path = tmp_path / "map.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StoreError, match="cannot be read"):
        read_map(path)
