"""Pictures: which pixels are shown, from a slice alone as from the whole volume."""

from __future__ import annotations

import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.builders import ct_series, head_hu
from triage.study import PatientHeader
from worklist_ui.previews import PRESETS, Window, slice_jpeg, slice_of_slab, windowed
from worklist_ui.volumes import PreviewSlice, VolumeCache


@pytest.fixture
def stored(department):
    """Store a series; gives its UID and instances."""

    def store(datasets):
        department._register(datasets, PatientHeader(), at=department.now, stat=False)
        return datasets[0].SeriesInstanceUID, department.studies.instances_of(datasets[0].StudyInstanceUID)

    return store


def stairs():
    """(Z, Y, X): a head that is 10 HU brighter with each slice."""
    hu = head_hu(8)
    return np.where(hu == 40, hu + 10 * np.arange(8)[:, None, None], hu).astype(np.float32)


def whole(cache, uid, instances):
    """Wait until the volume is in memory; gives the middle pixel of each slice."""
    cache.slice_of(uid, instances, 0)
    deadline = time.monotonic() + 20
    while not cache._kept:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(cache.slice_of(uid, instances, index).hu[32, 32]) for index in range(8)]


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, -1, 0]])
def test_slice_alone_is_the_slice_of_the_whole(department, stored, orientation):
    uid, instances = stored(ct_series(hu=stairs(), ImageOrientationPatient=orientation))

    alone = [
        int(VolumeCache(department.folder, 10**9).slice_of(uid, instances, index).hu[32, 32]) for index in range(8)
    ]

    assert alone == whole(VolumeCache(department.folder, 10**9), uid, instances)
    assert sorted(alone) == [40, 50, 60, 70, 80, 90, 100, 110]


def test_slice_beyond_the_last_is_an_index_error(department, stored):
    uid, instances = stored(ct_series(slices=3))

    with pytest.raises(IndexError):
        VolumeCache(department.folder, 10**9).slice_of(uid, instances, 3)


def test_memory_is_bounded(department, stored):
    cache = VolumeCache(department.folder, most_bytes=3 * 64 * 64 * 2)
    for _ in range(3):
        uid, instances = stored(ct_series(slices=3))
        cache._volume((uid, len(instances)), instances)

    assert sum(volume.hu.nbytes for volume in cache._kept.values()) <= 3 * 64 * 64 * 2
    assert len(cache._kept) == 1


@pytest.mark.parametrize(("hu", "grey"), [(-1000, 0), (0, 0), (40, 127), (80, 255), (3000, 255)])
def test_brain_window_is_linear_from_0_to_80_hu(hu, grey):
    assert windowed(np.full((2, 2), hu, np.int16), PRESETS[0])[0, 0] == grey


@pytest.mark.parametrize(
    ("slab", "slab_count", "slices", "slice_index"),
    [(0, 30, 30, 0), (29, 30, 30, 29), (0, 30, 150, 2), (29, 30, 150, 147), (99, 30, 30, 29)],
)
def test_slab_shows_the_slice_in_its_middle(slab, slab_count, slices, slice_index):
    assert slice_of_slab(slab, slab_count, slices) == slice_index


def test_oblong_pixels_are_drawn_square():
    drawn = PreviewSlice(np.zeros((400, 400), np.int16), spacing_mm=(1.0, 0.5))

    image = Image.open(BytesIO(slice_jpeg(drawn, Window("", 80, 40))))

    assert image.height == 2 * image.width
