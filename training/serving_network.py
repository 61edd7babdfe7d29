"""A trained network as it is served: int16 HU in, probability out."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.evaluation import Network
from triage.errors import ConfigError
from triage.finding import ModelSpec


def serving_function(served: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """Give the graph of `serving_default`: hu (N, Y, X, C) int16 to probability (N, Y, X) float32.

    Each slab is read as it is and as its mirror image, and the logits are averaged: a false alarm seldom comes twice.
    """
    channels = served.input_shape[-1]

    def predict(hu: tf.Tensor) -> dict[str, tf.Tensor]:
        # without this, a convolution ends the whole server at a tensor with fewer axes
        slabs = tf.cast(tf.ensure_shape(hu, [None, None, None, channels]), tf.float32)
        straight = served(slabs, training=False)
        mirrored = tf.reverse(served(tf.reverse(slabs, axis=[2]), training=False), axis=[2])
        return {"probability": tf.sigmoid((straight + mirrored) / 2.0)}

    return tf.function(predict, input_signature=[tf.TensorSpec(served.input_shape, tf.int16, name="hu")])


def load_served(folder: Path) -> tuple[Network, ModelSpec]:
    """Load one exported version: its network as a function of arrays, and what it says of itself.

    Raises:
        ConfigError: the folder is no version of a model that describes itself.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)  # as the endpoint does on a GPU
    try:
        signatures = tf.saved_model.load(str(folder)).signatures
        described = signatures["spec"](rows=tf.zeros([1], tf.int16))["json"].numpy()[0]
        spec = ModelSpec.model_validate_json(described)
        predict = signatures["serving_default"]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{folder} is no version of a model with the signatures serving_default and spec.") from error

    def network(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        probability: npt.NDArray[np.float32] = predict(**{spec.input_name: tf.constant(hu)})[spec.output_name].numpy()
        return probability

    return network, spec


def array_network(served: keras.Model) -> Network:
    """Give a network with folded normalisation as a function of arrays, through the graph that is exported."""
    predict = serving_function(served)

    def network(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        probability: npt.NDArray[np.float32] = predict(tf.constant(hu))["probability"].numpy()
        return probability

    return network
