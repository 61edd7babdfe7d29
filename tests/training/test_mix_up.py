"""Mix-up lays image and truth over another slab by the same share."""

import numpy as np
import tensorflow as tf

from training.mix_up import mixed_up

SEED = tf.constant([1, 2])


def slabs():
    levels = tf.constant([0.0, 100.0, 200.0, 300.0])[:, None, None]
    return tf.tile(levels[..., None], [1, 4, 4, 3]), tf.tile(levels / 300.0, [1, 4, 4])


def test_image_and_truth_are_mixed_by_the_same_share():
    hu, blood = mixed_up(*slabs(), 1.0, SEED)

    np.testing.assert_allclose(hu[..., 0] / 300.0, blood, atol=1e-5)
    assert not np.allclose(hu, slabs()[0])
    assert float(tf.reduce_max(tf.abs(hu[1] - 100.0))) <= 50.001  # its own share is at least a half


def test_no_slab_is_mixed_at_a_share_of_nothing():
    hu, blood = mixed_up(*slabs(), 0.0, SEED)

    np.testing.assert_array_equal(hu, slabs()[0])
    np.testing.assert_array_equal(blood, slabs()[1])


def test_same_seed_gives_the_same_mixture():
    np.testing.assert_array_equal(mixed_up(*slabs(), 0.5, SEED)[0], mixed_up(*slabs(), 0.5, SEED)[0])
