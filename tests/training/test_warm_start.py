"""Beginning with weights that exist."""

import numpy as np
import pytest

from tests.training.test_export import SPEC
from training.export import export_model
from training.network import build_network, fold_normalisation
from training.settings import NetworkSettings
from training.warm_start import start_from
from triage.errors import ConfigError

SMALL = NetworkSettings(widths=(4, 8))
SAME_RTOL = 1e-4  # of the largest logit: dividing by a variance and multiplying it back rounds float32


@pytest.fixture
def slabs():
    rng = np.random.default_rng(1)
    return [rng.uniform(-100, 200, (4, 16, 16, 3)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def published(tmp_path):
    """A network with normalisation of any weights, and the version that was exported of it."""
    trained = build_network(SMALL, (16, 16))
    rng = np.random.default_rng(2)
    for layer in trained.layers:
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()])
    folder = export_model(fold_normalisation(trained, SMALL, (16, 16)), SPEC, tmp_path / "ich_unet", 1)
    return trained, folder


def test_published_version_is_unfolded_into_the_same_function(published, slabs):
    trained, folder = published
    again = build_network(SMALL, (16, 16))

    start_from(again, folder, SMALL, slabs)

    expected = np.asarray(trained(slabs[0], training=False))
    np.testing.assert_allclose(
        np.asarray(again(slabs[0], training=False)), expected, atol=SAME_RTOL * np.abs(expected).max()
    )


def test_normalisation_is_put_back_for_the_batches_that_were_measured(published, slabs):
    _, folder = published
    again = build_network(SMALL, (16, 16))

    start_from(again, folder, SMALL, slabs[:1])

    served = np.asarray(again(slabs[0], training=False))
    np.testing.assert_allclose(  # one batch's own mean and variance are those that were put back
        np.asarray(again(slabs[0], training=True)), served, atol=SAME_RTOL * np.abs(served).max()
    )


def test_version_of_another_network_is_an_error(published, slabs):
    _, folder = published
    wider = NetworkSettings(widths=(8, 16))

    with pytest.raises(ConfigError, match="No weights of this network can be read"):
        start_from(build_network(wider, (16, 16)), folder, wider, slabs)
