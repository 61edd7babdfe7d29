"""A network that is widened computes what the narrow one did."""

import numpy as np
import pytest

from training.network import build_network
from training.settings import NetworkSettings
from training.warm_start import start_from
from training.widening import widen
from triage.errors import ConfigError

NARROW = NetworkSettings(widths=(4, 8))
WIDE = NetworkSettings(widths=(6, 16))  # one channel twice and one not, and all twice
SAME_ATOL = 1e-4  # of the largest logit


@pytest.fixture
def narrow():
    network = build_network(NARROW, (16, 16))
    rng = np.random.default_rng(2)
    for layer in network.layers:
        layer.set_weights(
            [rng.uniform(0.5, 1.5, w.shape) * rng.choice([-1, 1], w.shape[-1:]) for w in layer.get_weights()]
        )
        if layer.name.endswith("_norm"):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta, mean, np.abs(variance)])
    return network


@pytest.mark.parametrize("training", [False, True])
def test_widened_network_is_the_same_function(narrow, training):
    wide = build_network(WIDE, (16, 16))
    slabs = np.random.default_rng(1).uniform(-100, 200, (4, 16, 16, 3)).astype(np.float32)

    widen(narrow, wide, seed=1)

    expected = np.asarray(narrow(slabs, training=training))
    found = np.asarray(wide(slabs, training=training))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, atol=SAME_ATOL * np.abs(expected).max())


def test_copies_of_a_channel_are_read_with_weights_of_their_own(narrow):
    wide = build_network(WIDE, (16, 16))

    widen(narrow, wide, seed=1)

    kernel = wide.get_layer("bottomb_conv").get_weights()[0]
    first, copy = kernel[:, :, :8], kernel[:, :, 8:]
    proportion = first / copy
    assert np.std(proportion) > 0.1  # else an optimiser that scales by the gradient's size moves both alike


def test_narrower_network_and_another_depth_are_refused(narrow):
    with pytest.raises(ConfigError, match="stem_conv cannot be widened from 4 channels to 2"):
        widen(narrow, build_network(NetworkSettings(widths=(2, 8)), (16, 16)), seed=1)
    with pytest.raises(ConfigError, match="same depth only"):
        widen(narrow, build_network(NetworkSettings(widths=(4, 8, 16)), (16, 16)), seed=1)


def test_run_begins_with_a_narrower_checkpoint(narrow, tmp_path):
    import tensorflow as tf

    tf.train.CheckpointManager(tf.train.Checkpoint(network=narrow), str(tmp_path), 1).save()
    wide = build_network(WIDE, (16, 16))
    slabs = np.random.default_rng(1).uniform(-100, 200, (4, 16, 16, 3)).astype(np.float32)

    start_from(wide, tmp_path, WIDE, [], source_widths=NARROW.widths)

    expected = np.asarray(narrow(slabs, training=False))
    np.testing.assert_allclose(
        np.asarray(wide(slabs, training=False)), expected, atol=SAME_ATOL * np.abs(expected).max()
    )
