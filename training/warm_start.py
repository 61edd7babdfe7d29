"""Beginning with weights that exist: another run's checkpoint, or a published version whose run is gone.

A published version has no normalisation left: it was multiplied into the convolutions. It is put back from what the
convolutions give on training batches, so that the network begins as the function that was served.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.network import build_network
from training.settings import NetworkSettings
from training.widening import begin_narrower
from triage.errors import ConfigError

BATCHES_MEASURED = 8  # of training, for the mean and variance that each normalisation divides by

Arrays = list[npt.NDArray[np.float32]]


def start_from(
    network: keras.Model,
    source: Path,
    settings: NetworkSettings,
    slabs: Iterable[tf.Tensor],
    source_widths: tuple[int, ...] | None = None,
) -> None:
    """Take weights, and nothing else, from `source`.

    Args:
        network: with normalisation, as it is trained; changed in place.
        source: a published version's folder, a checkpoint, or a folder of checkpoints.
        settings: of that network.
        slabs: training batches (N, Y, X, C) HU; read only for a published version.
        source_widths: of the network at `source`, where it is a narrower one that is to be widened.

    Raises:
        ConfigError: there are no weights of this network, or of one that it can be widened from, at `source`.
    """
    if source_widths:
        begin_narrower(network, settings, source_widths, lambda narrow, of_it: start_from(narrow, source, of_it, slabs))
        return
    try:
        if (source / "saved_model.pb").exists():
            unfold(network, _published_weights(source), settings, slabs)
        else:
            _restore(network, source)
    except (tf.errors.OpError, AssertionError, ValueError, KeyError) as error:
        raise ConfigError(f"No weights of this network can be read from {source}.") from error


def unfold(network: keras.Model, weights: Arrays, settings: NetworkSettings, slabs: Iterable[tf.Tensor]) -> None:
    """Fill a network with normalisation from the weights of one without, so that both are the same function.

    Args:
        network: as it is trained; changed in place.
        weights: of the folded network, in its order.
        settings: of both.
        slabs: training batches, whose means and variances the normalisations take.

    Raises:
        ValueError: the weights have other shapes.
    """
    size = network.input_shape[1:3]
    folded = build_network(settings, size, folded=True)
    folded.set_weights(weights)
    normalised = [layer.name for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    names = [name.replace("_norm", "_conv") for name in normalised]
    moments = _moments(folded, names, slabs)
    for layer in folded.layers:
        if layer.weights and layer.name not in names:
            network.get_layer(layer.name).set_weights(layer.get_weights())
    for name, norm_name in zip(names, normalised, strict=True):
        kernel, bias = folded.get_layer(name).get_weights()
        norm = network.get_layer(norm_name)
        mean, variance = moments[name]
        network.get_layer(name).set_weights([kernel])
        norm.set_weights([np.sqrt(variance + norm.epsilon), mean, mean - bias, variance])


def _moments(folded: keras.Model, names: list[str], slabs: Iterable[tf.Tensor]) -> dict[str, tuple[Any, Any]]:
    """Give mean and variance of each convolution's channels over all voxels of the batches."""
    outputs = keras.Model(folded.input, [folded.get_layer(name).output for name in names])
    count = 0
    sums = [np.zeros((2, folded.get_layer(name).filters)) for name in names]
    for batch in slabs:
        count += 1
        for total, output in zip(sums, outputs(batch, training=False), strict=True):
            mean, variance = tf.nn.moments(output, [0, 1, 2])
            total += np.stack([mean, variance + mean**2])
    return {
        name: ((total / count)[0], np.maximum((total / count)[1] - (total / count)[0] ** 2, 0.0))
        for name, total in zip(names, sums, strict=True)
    }


def _published_weights(version: Path) -> Arrays:
    """Read the variables of a published version, in the order in which `export` keeps them."""
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    count = sum(name.startswith("served_variables/") for name in reader.get_variable_to_shape_map())
    return [reader.get_tensor(f"served_variables/{index}/.ATTRIBUTES/VARIABLE_VALUE") for index in range(count)]


def _restore(network: keras.Model, checkpoint: Path) -> None:
    path = tf.train.latest_checkpoint(str(checkpoint)) or str(checkpoint)
    tf.train.Checkpoint(network=network).restore(path).expect_partial().assert_existing_objects_matched()
