"""Reading slabs at other places: against scipy, and what each setting does to a place."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates

from training.placement import places, read_at
from training.preview import OFF

SEED = tf.constant([3, 4], tf.int32)
SIZE = (24, 20)


def drawn(count=64, crop=SIZE, **strength):
    settings = OFF.model_copy(update=strength)
    return places(tf.constant(count), tf.constant(SIZE), crop, settings, 1.25, SEED).numpy()


def test_reading_is_linear_interpolation_with_a_value_beyond_the_edges():
    rng = np.random.default_rng(1)
    images = rng.normal(30, 40, (2, *SIZE, 3)).astype(np.float32)
    at = rng.uniform(-3, 27, (2, 9, 7, 2)).astype(np.float32)

    found = read_at(tf.constant(images), tf.constant(at), -1000.0).numpy()

    for image, places_of_it, read in zip(images, at, found, strict=True):
        for channel in range(3):
            expected = map_coordinates(
                image[..., channel], np.moveaxis(places_of_it, -1, 0), order=1, mode="grid-constant", cval=-1000.0
            )
            np.testing.assert_allclose(read[..., channel], expected, atol=0.01)


def test_whole_numbers_are_read_as_they_are():
    images = np.arange(24 * 20, dtype=np.int16).reshape(1, *SIZE, 1)

    np.testing.assert_array_equal(read_at(images, drawn(1), -1000.0).numpy(), images)


def test_without_changes_a_crop_is_the_middle():
    at = drawn(2, crop=(16, 12))

    np.testing.assert_allclose(at[:, 0, 0], [[4, 4]] * 2, atol=1e-4)
    np.testing.assert_allclose(at[:, -1, -1], [[19, 15]] * 2, atol=1e-4)


def test_mirror_swaps_columns_of_about_half():
    at = drawn(flip=True)

    mirrored = at[:, 0, 0, 1] > at[:, 0, -1, 1]
    assert 0.3 < mirrored.mean() < 0.7
    np.testing.assert_allclose(at[mirrored][:, :, ::-1], at[~mirrored][:1].repeat(mirrored.sum(), axis=0), atol=1e-4)


@pytest.mark.parametrize(
    ("strength", "keeps_distance"),
    [({"rotation_deg": 20.0}, True), ({"shift_mm": 5.0}, True), ({"scale": 0.1}, False), ({"elastic_mm": 4.0}, False)],
)
def test_each_setting_moves_places(strength, keeps_distance):
    at = drawn(**strength)

    distance = np.linalg.norm(at[:, 0, 0] - at[:, -1, -1], axis=-1)
    assert np.abs(at - drawn(1)).max() > 0.5
    assert np.allclose(distance, np.linalg.norm(np.array(SIZE) - 1), atol=1e-3) == keeps_distance
