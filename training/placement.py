"""Where the pixels of a training slab are read from: turned, scaled, shifted, mirrored and bent.

All changes of place are put together before anything is read, since each reading between pixels softens an image.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from training.settings import AugmentationSettings
from training.smooth_noise import lattice_weights

ELASTIC_CELLS = 5  # random displacements a side, with smooth ones between them: about 40 mm apart


def places(
    count: tf.Tensor,
    size: tf.Tensor,
    crop: tuple[int, int],
    settings: AugmentationSettings,
    pixel_mm: float,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Draw where each pixel of some slabs is read.

    Args:
        count: of slabs, N.
        size: (2,) rows and columns of the slabs.
        crop: rows and columns that are read, about the middle.
        settings: by how much places may change.
        pixel_mm: in-plane spacing.
        seed: (2,) int32; the same seed gives the same places.

    Returns:
        (N, crop rows, crop columns, 2) float32 row and column.
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    normal = tf.random.stateless_normal((count, 4), seeds[0])
    angle = normal[:, 0] * (settings.rotation_deg * np.pi / 180.0)
    scale = tf.clip_by_value(1.0 + normal[:, 1] * settings.scale, 0.75, 1.25)
    shift = normal[:, 2:4] * (settings.shift_mm / pixel_mm)
    coin = tf.random.stateless_uniform((count,), seeds[1]) < 0.5
    mirror = tf.where(coin & settings.flip, -1.0, 1.0)
    cos, sin = scale * tf.cos(angle), scale * tf.sin(angle)
    turned = tf.stack([tf.stack([cos, mirror * sin], axis=-1), tf.stack([-sin, mirror * cos], axis=-1)], axis=1)
    from_middle = _from_middle(crop) + _bent(count, crop, settings.elastic_mm / pixel_mm, seeds[2])
    middle = (tf.cast(size, tf.float32) - 1.0) / 2.0
    return tf.matmul(from_middle, turned[:, None], transpose_b=True) + (middle + shift)[:, None, None]


def read_at(images: tf.Tensor, at: tf.Tensor, outside: float) -> tf.Tensor:
    """Read images between their pixels by linear interpolation.

    Args:
        images: (N, Y, X, C).
        at: (N, y, x, 2) row and column.
        outside: what lies beyond the edges.

    Returns:
        (N, y, x, C) float32.
    """
    return (_read_compiled if _compiling else _read)(images, at, outside)


def read_uncompiled() -> None:
    """Read without XLA from here on: it cannot compile what TensorBoard's debugger puts between all operations."""
    global _compiling
    _compiling = False


def _read(images: tf.Tensor, at: tf.Tensor, outside: float) -> tf.Tensor:
    rows, columns = tf.shape(images)[1], tf.shape(images)[2]
    top, left = tf.floor(at[..., 0]), tf.floor(at[..., 1])
    down, right = (at[..., 0] - top)[..., None], (at[..., 1] - left)[..., None]
    y, x = tf.cast(top, tf.int32), tf.cast(left, tf.int32)

    def pixel(dy: int, dx: int) -> tf.Tensor:
        inside = (y >= -dy) & (y < rows - dy) & (x >= -dx) & (x < columns - dx)
        place = tf.stack([tf.clip_by_value(y + dy, 0, rows - 1), tf.clip_by_value(x + dx, 0, columns - 1)], axis=-1)
        return tf.where(inside[..., None], tf.cast(tf.gather_nd(images, place, batch_dims=1), tf.float32), outside)

    upper = pixel(0, 0) * (1.0 - right) + pixel(0, 1) * right
    lower = pixel(1, 0) * (1.0 - right) + pixel(1, 1) * right
    return upper * (1.0 - down) + lower * down


# four readings and their mean in one pass take a tenth of the time
_read_compiled = tf.function(_read, jit_compile=True, reduce_retracing=True)
_compiling = True


def _from_middle(crop: tuple[int, int]) -> tf.Tensor:
    rows, columns = (tf.range(side, dtype=tf.float32) - (side - 1) / 2.0 for side in crop)
    return tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1)[None]


def _bent(count: tf.Tensor, crop: tuple[int, int], sd_pixels: float, seed: tf.Tensor) -> tf.Tensor:
    """Give a smooth displacement of each pixel, whose standard deviation was `sd_pixels` where it was drawn."""
    if not sd_pixels:
        return tf.zeros((1, 1, 1, 2))
    drawn = tf.random.stateless_normal((count, ELASTIC_CELLS, ELASTIC_CELLS, 2), seed) * sd_pixels
    along_y, along_x = (tf.constant(lattice_weights(side, ELASTIC_CELLS - 1)) for side in crop)
    return tf.einsum("yi,nijc,xj->nyxc", along_y, drawn, along_x)
