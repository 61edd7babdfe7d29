"""Random changes to slabs while they stream: moved, bent, brightened, made noisy or blurred."""

from __future__ import annotations

import tensorflow as tf

from training.degradations import kernel, streaks, thickness, window
from training.placement import places, read_at
from training.settings import AugmentationSettings
from triage.volume import AIR_HU


def augmented(
    hu: tf.Tensor,
    blood: tf.Tensor,
    settings: AugmentationSettings,
    crop: tuple[int, int],
    pixel_mm: float,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Change a batch of slabs.

    Args:
        hu: (N, Y, X, C) HU of any type.
        blood: (N, Y, X) share of each voxel.
        settings: what is changed, and by how much.
        crop: rows and columns that are kept, about the middle.
        pixel_mm: in-plane spacing.
        seed: (2,) int32; the same seed gives the same changes.

    Returns:
        The same of (N, crop rows, crop columns, ...), float32.
    """
    seeds = tf.random.experimental.stateless_split(seed, 5)
    at = places(tf.shape(hu)[0], tf.shape(hu)[1:3], crop, settings, pixel_mm, seeds[0])
    changed = _degraded(read_at(hu, at, AIR_HU), settings, seeds[4])
    return _intensity(changed, settings, seeds), read_at(blood[..., None], at, 0.0)[..., 0]


def _degraded(hu: tf.Tensor, settings: AugmentationSettings, seed: tf.Tensor) -> tf.Tensor:
    """Imitate other scanners, each change with random numbers of its own."""
    seeds = tf.random.experimental.stateless_split(seed, 4)
    if settings.thickness:
        hu = thickness(hu, settings.thickness, seeds[0])
    if settings.streaks_hu:
        hu = streaks(hu, settings.streaks_hu, seeds[1])
    if settings.kernel:
        hu = kernel(hu, settings.kernel, seeds[2])
    if settings.window:
        hu = window(hu, settings.window, seeds[3])
    return hu


def _intensity(hu: tf.Tensor, settings: AugmentationSettings, seeds: tf.Tensor) -> tf.Tensor:
    count = tf.shape(hu)[0]
    normal = tf.random.stateless_normal((count, 2), seeds[1])
    level = tf.random.stateless_uniform((count, 2), seeds[2])
    soft = (level[:, 0] < settings.blur)[:, None, None, None]
    hu = tf.cond(
        tf.reduce_any(soft), lambda: tf.where(soft, 0.5 * (hu + tf.nn.avg_pool2d(hu, 3, 1, "SAME")), hu), lambda: hu
    )
    hu = hu * (1.0 + settings.gain * normal[:, 0])[:, None, None, None]
    hu = hu + (settings.offset_hu * normal[:, 1])[:, None, None, None]
    noise = tf.random.stateless_normal(tf.shape(hu), seeds[3])
    return hu + noise * (settings.noise_hu * level[:, 1])[:, None, None, None]
