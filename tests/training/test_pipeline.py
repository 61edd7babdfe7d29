"""Conversion to shards and the batches streamed from them."""

import numpy as np
import pytest

from training.pipeline import Part, training_batches
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
    assert float(blood.numpy().max()) <= 1.001


def test_round_decides_the_batches(small_run, converted):
    def first(round_number):
        return next(iter(training_batches(small_run, converted, round_number)))[0].numpy()

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))


@pytest.mark.parametrize("mix_up", [0.0, 0.5])
def test_processes_share_out_what_one_would_see(small_run, converted, mix_up):
    changes = small_run.augmentation.model_copy(update={"mix_up": mix_up})
    run = small_run.model_copy(update={"augmentation": changes})

    def first_two(**which):
        return [[part.numpy() for part in batch] for batch in training_batches(run, converted, 0, **which).take(2)]

    whole = first_two()
    parts = [first_two(part=Part(number, 1, 2)) for number in range(2)]

    for step, expected in enumerate(whole):
        for tensor, of_both in enumerate(expected):
            np.testing.assert_array_equal(np.concatenate([part[step][tensor] for part in parts]), of_both)


def test_replicas_of_one_process_have_a_batch_each(small_run, converted):
    [whole] = training_batches(small_run, converted, 0).take(1)
    both = list(training_batches(small_run, converted, 0, part=Part(0, 2, 2)).take(2))

    np.testing.assert_array_equal(np.concatenate([hu.numpy() for hu, _ in both]), whole[0].numpy())


def test_round_goes_on_where_it_was_broken_off(small_run, converted):
    unbroken = [hu.numpy() for hu, _ in training_batches(small_run, converted, 0).take(3)]
    resumed = [hu.numpy() for hu, _ in training_batches(small_run, converted, 0, shown=2).take(1)]

    np.testing.assert_array_equal(resumed[0], unbroken[2])


def test_mix_up_needs_pairs(small_run, converted):
    changes = small_run.augmentation.model_copy(update={"mix_up": 0.5})
    run = small_run.model_copy(update={"augmentation": changes})

    with pytest.raises(ConfigError, match="1 slabs for each replica are not even"):
        training_batches(run, converted, 0, part=Part(0, 1, 4))
