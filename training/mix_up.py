"""Mix-up: some slabs of a batch laid over another one, image and truth by the same share.

Reference:
    Zhang H. et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from __future__ import annotations

import tensorflow as tf

SHAPE = 0.4  # of the Beta distribution of shares: mostly one slab or the other, seldom both alike


def mixed_up(hu: tf.Tensor, blood: tf.Tensor, share: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Lay some slabs over their neighbour in the batch.

    Args:
        hu: (N, Y, X, C) HU.
        blood: (N, Y, X) share of each voxel.
        share: of the slabs that are mixed.
        seed: (2,) int32; the same seed gives the same mixture.
    """
    count = tf.shape(hu)[0]
    seeds = tf.random.experimental.stateless_split(seed, 2)
    one, other = tf.unstack(tf.random.stateless_gamma((2, count), seeds[0], SHAPE))
    weight = tf.maximum(one, other) / (one + other + 1e-6)
    weight = tf.where(tf.random.stateless_uniform((count,), seeds[1]) < share, weight, 1.0)[:, None, None]
    blood = weight * blood + (1.0 - weight) * tf.roll(blood, 1, axis=0)
    weight = weight[..., None]
    return weight * hu + (1.0 - weight) * tf.roll(hu, 1, axis=0), blood
