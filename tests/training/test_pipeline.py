"""Conversion to shards and the batches streamed from them."""

import numpy as np
import pytest

from training.pipeline import training_batches
from training.settings import CtIchSource, PhantomSource
from training.shards import convert, data_sha256, read_scans
from training.sources import read_source
from triage.errors import ConfigError


@pytest.fixture
def converted(small_run):
    return [(source, convert(source, small_run.grid, small_run.shards_folder)) for source in small_run.source]


def test_shards_give_back_what_was_converted(small_run, converted):
    scans = sorted(read_scans(converted[0][1]), key=lambda scan: scan.patient)

    expected = list(read_source(small_run.source[0], small_run.grid.grid))
    assert [scan.patient for scan in scans] == [scan.patient for scan in expected]
    for scan, original in zip(scans, expected, strict=True):
        np.testing.assert_array_equal(scan.hu, original.hu)
        np.testing.assert_array_equal(scan.blood, original.blood)
        assert (scan.kinds, scan.voxel_ml) == (original.kinds, pytest.approx(original.voxel_ml))


def test_converted_source_is_not_converted_again(small_run, converted):
    told = []

    convert(small_run.source[0], small_run.grid, small_run.shards_folder, told.append)

    assert told == []


def test_source_that_fails_leaves_nothing_that_looks_converted(small_run, tmp_path):
    with pytest.raises(ConfigError, match="is not ct-ich"):
        convert(CtIchSource(folder=tmp_path), small_run.grid, tmp_path / "shards")

    assert [path.name for path in (tmp_path / "shards").iterdir() if not path.name.startswith(".")] == []


def test_source_without_scans_is_an_error(tiny_ct_ich, small_run, tmp_path):
    with pytest.raises(ConfigError, match="gave no scan"):
        convert(CtIchSource(folder=tiny_ct_ich, folds=(4,)), small_run.grid, tmp_path / "shards")


def test_data_hash_changes_with_the_data(small_run, converted, tmp_path):
    other = convert(PhantomSource(count=1, size=64, slices=4, seed=6), small_run.grid, tmp_path / "other")

    assert data_sha256([converted[0][1]]) != data_sha256([other])


def test_batches_have_slabs_with_neighbours_and_the_share_of_blood(small_run, converted):
    hu, blood = next(iter(training_batches(small_run, converted, 0)))

    assert hu.shape == (4, 48, 48, 3)
    assert blood.shape == (4, 48, 48)
    assert float(blood.numpy().min()) >= 0
    assert float(blood.numpy().max()) <= 1


def test_round_decides_the_batches(small_run, converted):
    def first(round_number):
        return next(iter(training_batches(small_run, converted, round_number)))[0].numpy()

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))
