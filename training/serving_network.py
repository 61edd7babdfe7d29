"""A trained network as it is served: int16 HU in, probability out."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.evaluation import Network


def serving_function(served: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """Give the graph of `serving_default`: hu (N, Y, X, C) int16 to probability (N, Y, X) float32."""

    def predict(hu: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": tf.sigmoid(served(tf.cast(hu, tf.float32), training=False))}

    return tf.function(predict, input_signature=[tf.TensorSpec(served.input_shape, tf.int16, name="hu")])


def array_network(served: keras.Model) -> Network:
    """Give a network with folded normalisation as a function of arrays, through the graph that is exported."""
    predict = serving_function(served)

    def network(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        probability: npt.NDArray[np.float32] = predict(tf.constant(hu))["probability"].numpy()
        return probability

    return network
