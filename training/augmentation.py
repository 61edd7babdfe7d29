"""Random changes to slabs while they stream: turned, scaled, shifted, flipped, brightened, made noisy or blurred."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from training.degradations import elastic, kernel, streaks, thickness, window
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
        hu: (N, Y, X, C) float32 HU.
        blood: (N, Y, X) float32 share of each voxel.
        settings: what is changed, and by how much.
        crop: rows and columns that are kept, about the middle.
        pixel_mm: in-plane spacing.
        seed: (2,) int32; the same seed gives the same changes.

    Returns:
        The same of (N, crop rows, crop columns, ...).
    """
    seeds = tf.random.experimental.stateless_split(seed, 5)
    transforms = _transforms(tf.shape(hu), settings, crop, pixel_mm, seeds[0])
    hu = _warped(hu, transforms, crop, AIR_HU)
    blood = _warped(blood[..., None], transforms, crop, 0.0)[..., 0]
    hu, blood = _degraded(hu, blood, settings, pixel_mm, seeds[4])
    return _intensity(hu, settings, seeds), blood


def centre_crop(tensor: tf.Tensor, crop: tuple[int, int]) -> tf.Tensor:
    """Cut the middle out of (N, Y, X, ...)."""
    rows, columns = tf.shape(tensor)[1], tf.shape(tensor)[2]
    top, left = (rows - crop[0]) // 2, (columns - crop[1]) // 2
    return tensor[:, top : top + crop[0], left : left + crop[1]]


def _transforms(
    shape: tf.Tensor, settings: AugmentationSettings, crop: tuple[int, int], pixel_mm: float, seed: tf.Tensor
) -> tf.Tensor:
    """Give projective transforms (N, 8) from output to input pixels, as ImageProjectiveTransformV3 takes them."""
    count = shape[0]
    normal = tf.random.stateless_normal((count, 4), seed)
    angle = normal[:, 0] * (settings.rotation_deg * np.pi / 180.0)
    scale = tf.clip_by_value(1.0 + normal[:, 1] * settings.scale, 0.75, 1.25)
    shift = normal[:, 2:4] * (settings.shift_mm / pixel_mm)
    coin = tf.random.stateless_uniform((count,), tf.random.experimental.stateless_fold_in(seed, 1)) < 0.5
    mirror = tf.where(coin & settings.flip, -1.0, 1.0)
    a0, a1 = scale * mirror * tf.cos(angle), -scale * tf.sin(angle)
    b0, b1 = scale * mirror * tf.sin(angle), scale * tf.cos(angle)
    centre_in = tf.cast(shape[1:3] - 1, tf.float32) / 2.0
    centre_out = (np.array(crop, np.float32) - 1) / 2.0
    a2 = centre_in[1] + shift[:, 0] - a0 * centre_out[1] - a1 * centre_out[0]
    b2 = centre_in[0] + shift[:, 1] - b0 * centre_out[1] - b1 * centre_out[0]
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


def _warped(images: tf.Tensor, transforms: tf.Tensor, crop: tuple[int, int], outside: float) -> tf.Tensor:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.constant(crop, tf.int32),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=float(outside),
    )


def _degraded(
    hu: tf.Tensor, blood: tf.Tensor, settings: AugmentationSettings, pixel_mm: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Imitate other scanners, each change with random numbers of its own."""
    seeds = tf.random.experimental.stateless_split(seed, 5)
    if settings.elastic_mm:
        hu, blood = elastic(hu, blood, settings.elastic_mm / pixel_mm, seeds[0])
    if settings.thickness:
        hu = thickness(hu, settings.thickness, seeds[1])
    if settings.streaks_hu:
        hu = streaks(hu, settings.streaks_hu, seeds[2])
    if settings.kernel:
        hu = kernel(hu, settings.kernel, seeds[3])
    if settings.window:
        hu = window(hu, settings.window, seeds[4])
    return hu, blood


def _intensity(hu: tf.Tensor, settings: AugmentationSettings, seeds: tf.Tensor) -> tf.Tensor:
    count = tf.shape(hu)[0]
    normal = tf.random.stateless_normal((count, 2), seeds[1])
    level = tf.random.stateless_uniform((count, 2), seeds[2])
    blurred = tf.nn.avg_pool2d(hu, 3, 1, "SAME")
    soft = (level[:, 0] < settings.blur)[:, None, None, None]
    hu = tf.where(soft, 0.5 * (hu + blurred), hu)
    hu = hu * (1.0 + settings.gain * normal[:, 0])[:, None, None, None]
    hu = hu + (settings.offset_hu * normal[:, 1])[:, None, None, None]
    noise = tf.random.stateless_normal(tf.shape(hu), seeds[3])
    return hu + noise * (settings.noise_hu * level[:, 1])[:, None, None, None]
