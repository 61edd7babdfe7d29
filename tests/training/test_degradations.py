"""Changes that imitate other scanners: what each does to an image and to its mask."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image

from training.augmentation import augmented
from training.data_cli import data
from training.degradations import kernel, streaks, thickness, window
from training.preview import OFF, switched_on
from training.settings import AugmentationSettings

SEED = tf.constant([3, 4], tf.int32)
SIDE = 48


@pytest.fixture
def slab():
    """(2, 48, 48, 3) HU: brain of 30 with a square of blood of 70 in the middle channel alone; and its mask."""
    hu = np.full((2, SIDE, SIDE, 3), 30.0, np.float32)
    blood = np.zeros((2, SIDE, SIDE), np.float32)
    hu[:, 16:32, 16:32, 1] = 70.0
    blood[:, 16:32, 16:32] = 1.0
    return tf.constant(hu), tf.constant(blood)


def middle(hu):
    return hu.numpy()[..., 1]


def test_elastic_bends_image_and_mask_alike(slab):
    hu, blood = augmented(*slab, OFF.model_copy(update={"elastic_mm": 2.5}), (SIDE, SIDE), 1.25, SEED)

    inner = slice(8, 40)  # beyond the edges is air
    assert not np.array_equal(blood.numpy(), slab[1].numpy())
    np.testing.assert_allclose(middle(hu)[:, inner, inner], (30 + 40 * blood.numpy())[:, inner, inner], atol=1e-3)
    assert 0.6 < blood.numpy().sum() / slab[1].numpy().sum() < 1.5


def test_kernel_changes_edges_and_leaves_flat_tissue(slab):
    changed = middle(kernel(slab[0], 1.0, SEED))

    assert np.abs(changed[:, 16, 20:28] - 70).max() > 0.5
    np.testing.assert_allclose(changed[:, :8, :8], 30.0, atol=1e-3)
    np.testing.assert_allclose(changed.sum(), middle(slab[0]).sum(), rtol=1e-4)
    np.testing.assert_array_equal(middle(kernel(slab[0], 0.0, SEED)), middle(slab[0]))


def test_window_keeps_its_centre_and_moves_contrast(slab):
    changed = middle(window(slab[0] + 10.0, 0.2, SEED))  # brain at 40 HU, blood at 80

    np.testing.assert_allclose(changed[:, 0, 0], 40.0, atol=1e-4)
    contrast = changed[:, 20, 20] - 40.0
    assert np.all((contrast >= 0.6 * 40) & (contrast <= 1.6 * 40))
    assert np.abs(contrast - 40.0).max() > 0.5


def test_thickness_mixes_the_neighbours_in(slab):
    changed = thickness(slab[0], 1.0, SEED).numpy()

    centre, beside = changed[:, 20, 20, 1], changed[:, 20, 20, 0]
    assert np.all((centre < 70) & (centre >= 30))  # the neighbours have no blood
    assert np.all(beside > 30)
    np.testing.assert_allclose(beside - 30, (70 - centre) / 2, rtol=1e-4)  # one of its two neighbours has


def test_streaks_are_bright_and_dark_and_fade(slab):
    added = middle(streaks(slab[0], 40.0, SEED)) - middle(slab[0])

    assert added.min() < -1
    assert added.max() > 1
    assert abs(added.mean()) < 0.2 * added.std()


@pytest.mark.parametrize("name", ["elastic_mm", "kernel", "window", "thickness", "streaks_hu"])
def test_each_is_switched_by_its_setting(slab, name):
    strength = {"elastic_mm": 8.0, "kernel": 1.0, "window": 0.2, "thickness": 1.0, "streaks_hu": 40.0}[name]
    still, _ = augmented(*slab, OFF, (SIDE, SIDE), 1.25, SEED)
    changed, mask = augmented(*slab, OFF.model_copy(update={name: strength}), (SIDE, SIDE), 1.25, SEED)
    again, _ = augmented(*slab, OFF.model_copy(update={name: strength}), (SIDE, SIDE), 1.25, SEED)

    np.testing.assert_allclose(still.numpy(), slab[0].numpy(), atol=1e-3)
    assert np.abs(changed.numpy() - still.numpy()).max() > 0.5
    np.testing.assert_array_equal(changed.numpy(), again.numpy())
    assert np.array_equal(mask.numpy(), slab[1].numpy()) == (name != "elastic_mm")


def test_new_changes_are_off_unless_they_are_asked_for():
    assert set(switched_on(AugmentationSettings())) == {
        "flip", "rotation_deg", "scale", "shift_mm", "gain", "offset_hu", "noise_hu", "blur", "all together",
    }  # fmt: skip
    assert switched_on(OFF) == {}


def test_preview_draws_a_row_for_each_change(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        f"""
folder = "{tmp_path}/run"
[grid]
rows = 48
columns = 48
spacing_mm = [5.0, 5.0, 5.0]
[augmentation]
flip = false
rotation_deg = 20.0
scale = 0.0
shift_mm = 0.0
gain = 0.0
offset_hu = 0.0
noise_hu = 0.0
blur = 0.0
streaks_hu = 60.0
[optimiser]
crop = [48, 48]
[[source]]
kind = "phantom"
count = 2
bleed_share = 1.0
size = 96
slices = 12
"""
    )
    picture = tmp_path / "sheet.png"

    result = CliRunner().invoke(data, ["preview", str(config), str(picture)])

    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith("rotation_deg, streaks_hu, all together")
    with Image.open(picture) as sheet:
        pixels = np.asarray(sheet).astype(int)
    assert pixels.shape == (3 * 194, 6 * 176, 3)
    first, second = pixels[18:194, :176], pixels[18:194, 176:352]
    assert np.abs(first - second).mean() > 1  # turned
    assert (first == (255, 60, 60)).all(axis=2).any() or (first[..., 0] - first[..., 1] > 60).any()  # the outline


def test_preview_of_nothing_is_an_error(tmp_path):
    config = tmp_path / "run.toml"
    off = "\n".join(f"{name} = {'false' if name == 'flip' else 0}" for name in AugmentationSettings.model_fields)
    config.write_text(f'folder = "a"\n[augmentation]\n{off}\n[[source]]\nkind = "phantom"\n')

    result = CliRunner().invoke(data, ["preview", str(config), str(tmp_path / "x.png")])

    assert result.exit_code == 1
    assert "No augmentation is switched on" in result.output


def test_all_changes_run_where_slabs_are_streamed(small_run):
    from training.pipeline import training_batches
    from training.shards import convert

    on = {"elastic_mm": 3.0, "kernel": 1.0, "window": 0.1, "thickness": 0.5, "streaks_hu": 30.0}
    run = small_run.model_copy(update={"augmentation": AugmentationSettings(**on)})
    converted = [(source, convert(source, run.grid, run.shards_folder)) for source in run.source]

    hu, blood = next(iter(training_batches(run, converted, 0)))

    assert (hu.shape, blood.shape) == ((4, 48, 48, 3), (4, 48, 48))
    assert np.isfinite(hu.numpy()).all()
    assert -0.01 <= blood.numpy().min() <= blood.numpy().max() <= 1.01
