"""Random changes that imitate other scanners: other kernels, thicker slices, streaks.

Each takes a batch of slabs and a seed and gives the batch changed; a strength of 0 is not called at all, so that a run
without it sees exactly what it saw before.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

KERNEL_SD_PIXELS = 1.0  # of the soft kernel; -0.5 of it sharpens, 1 is as soft as kernels get on this grid
KERNEL_RANGE = (-0.5, 1.0)
WINDOW_CENTRE_HU = 40.0  # brain window: contrast changes about it
STREAKS = 24  # rays about the metal


def kernel(hu: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Make a share of the slabs softer or sharper, as reconstruction kernels do; masks stay."""
    count = tf.shape(hu)[0]
    draw = tf.random.stateless_uniform((count, 2), seed)
    low, high = KERNEL_RANGE
    amount = tf.where(draw[:, 0] < share, low + (high - low) * draw[:, 1], 0.0)[:, None, None, None]
    return tf.cond(tf.reduce_any(amount != 0.0), lambda: hu + amount * (_gaussian(hu) - hu), lambda: hu)


def window(hu: tf.Tensor, sd: float, seed: tf.Tensor) -> tf.Tensor:
    """Widen or narrow the contrast about the brain window's centre by a random factor; masks stay."""
    factor = 1.0 + sd * tf.random.stateless_normal((tf.shape(hu)[0], 1, 1, 1), seed)
    return WINDOW_CENTRE_HU + (hu - WINDOW_CENTRE_HU) * tf.clip_by_value(factor, 0.6, 1.6)


def thickness(hu: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Mix slabs with their neighbours, up to a share from both together, as thicker slices do.

    The mask stays that of the slab itself: blood next door that shines in is partial volume, not truth.
    """
    amount = share * tf.random.stateless_uniform((tf.shape(hu)[0], 1, 1, 1), seed)
    below = tf.concat([hu[..., :1], hu[..., :-1]], axis=-1)
    above = tf.concat([hu[..., 1:], hu[..., -1:]], axis=-1)
    return hu + amount * (0.5 * (below + above) - hu)


def streaks(hu: tf.Tensor, peak_hu: float, seed: tf.Tensor) -> tf.Tensor:
    """Add bright and dark rays about a random point, as metal and the skull base throw them; masks stay.

    Args:
        hu: (N, Y, X, C).
        peak_hu: largest height of a ray near its point; drawn from 0 to this for each slab.
        seed: (2,) int32.
    """
    shape = tf.shape(hu)
    seeds = tf.random.experimental.stateless_split(seed, 2)
    draw = tf.random.stateless_uniform((shape[0], 3), seeds[0])
    phases = tf.random.stateless_uniform((shape[0], STREAKS), seeds[1], 0.0, 2 * np.pi)
    size = tf.cast(shape[1:3], tf.float32)
    dy = tf.range(size[0])[None, :, None] - (draw[:, 0] * size[0])[:, None, None]
    dx = tf.range(size[1])[None, None, :] - (draw[:, 1] * size[1])[:, None, None]
    angle, distance = tf.atan2(dy, dx), tf.sqrt(dy * dy + dx * dx)
    rays = tf.zeros_like(angle)
    for count in range(STREAKS // 4, STREAKS):
        rays += tf.cos(float(count) * angle + phases[:, count, None, None])
    rays /= np.sqrt(STREAKS * 0.75 / 2)  # of unit standard deviation
    height = (draw[:, 2] * peak_hu)[:, None, None] * tf.exp(-distance / (0.35 * size[1]))
    return hu + (height * rays)[..., None]


def _gaussian(hu: tf.Tensor) -> tf.Tensor:
    at = np.arange(-3, 4)
    weights = np.exp(-(at**2) / (2 * KERNEL_SD_PIXELS**2))
    line = tf.constant(weights / weights.sum(), tf.float32)
    channels = hu.shape[-1]
    across = tf.tile(tf.reshape(line, (1, 7, 1, 1)), (1, 1, channels, 1))
    down = tf.tile(tf.reshape(line, (7, 1, 1, 1)), (1, 1, channels, 1))
    padded = tf.pad(hu, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="SYMMETRIC")
    rows = tf.nn.depthwise_conv2d(padded, across, (1, 1, 1, 1), "VALID")
    return tf.nn.depthwise_conv2d(rows, down, (1, 1, 1, 1), "VALID")
