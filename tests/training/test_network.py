"""The U-Net and its losses."""

import numpy as np
import pytest

from training.losses import cross_entropy, dice_loss, dice_parts, slab_dice_loss
from training.network import Windows, build_network, fold_normalisation
from training.settings import NetworkSettings
from triage.errors import ConfigError

SMALL = NetworkSettings(widths=(4, 8))
FOLD_ATOL = 1e-4  # logits: folding reorders float32 sums


def test_windows_map_their_ends_to_minus_one_and_one():
    hu = np.array([-100.0, 0.0, 40.0, 80.0, 900.0], np.float32).reshape(1, 1, 5, 1)

    scaled = np.asarray(Windows(((0.0, 80.0),))(hu))

    assert scaled.ravel().tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]


def test_network_gives_one_logit_a_voxel():
    network = build_network(SMALL, (16, 24))

    assert network(np.zeros((2, 16, 24, 3), np.float32)).shape == (2, 16, 24)


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ConfigError, match="18 x 16 voxels cannot be halved 2 times; use multiples of 4"):
        build_network(SMALL, (18, 16))


def test_folded_network_gives_the_same_logits_at_any_size():
    rng = np.random.default_rng(1)
    trained = build_network(SMALL, (16, 16))
    for layer in trained.layers:
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()])
    hu = rng.uniform(-100, 200, (2, 16, 16, 3)).astype(np.float32)

    served = fold_normalisation(trained, SMALL, (16, 16))

    expected = np.asarray(trained(hu, training=False))
    np.testing.assert_allclose(np.asarray(served(hu)), expected, atol=FOLD_ATOL * np.abs(expected).max())
    assert fold_normalisation(trained, SMALL, (32, 16)).output_shape == (None, 32, 16)


def test_cross_entropy_of_even_odds_is_log_two():
    assert float(cross_entropy(np.zeros((1, 2, 2)), np.ones((1, 2, 2)))) == pytest.approx(np.log(2))


def test_dice_loss_of_a_perfect_and_of_an_empty_batch_is_zero():
    blood = np.zeros((1, 4, 4), np.float32)
    blood[0, 1, 1:3] = 1

    assert float(dice_loss(dice_parts(np.where(blood > 0, 50.0, -50.0), blood))) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(dice_parts(np.full((1, 4, 4), -50.0), np.zeros((1, 4, 4))))) == pytest.approx(0, abs=1e-6)


def test_dice_parts_of_halves_add_up_to_the_whole():
    rng = np.random.default_rng(1)
    logits, blood = rng.normal(size=(4, 8, 8)), rng.random((4, 8, 8))

    halves = np.asarray(dice_parts(logits[:2], blood[:2])) + np.asarray(dice_parts(logits[2:], blood[2:]))

    np.testing.assert_allclose(halves, np.asarray(dice_parts(logits, blood)), rtol=1e-5)


def test_slab_dice_counts_a_thin_bleed_like_a_large_one():
    blood = np.zeros((2, 16, 16), np.float32)
    blood[0, 4:12, 4:12], blood[1, 3, 2:6] = 1, 1  # 64 and 4 voxels
    only_large = np.where(np.arange(2)[:, None, None] == 0, np.where(blood > 0, 50.0, -50.0), -50.0).astype(np.float32)

    # the large one is perfect; of the thin one 20 of 4 + 20 voxels remain: all of its Dice but the smoothing
    assert float(slab_dice_loss(only_large, blood)) == pytest.approx((0 + 4 / 24) / 2, abs=1e-6)


def test_slab_dice_of_an_empty_slab_falls_with_its_false_alarms():
    logits = np.full((1, 8, 8), -50.0)
    logits[0, :4, :5] = 50.0  # 20 voxels, as many as the smoothing

    assert float(slab_dice_loss(logits, np.zeros((1, 8, 8)))) == pytest.approx(0.5, abs=1e-6)
