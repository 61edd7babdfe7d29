"""The U-Net: slabs in HU in, the probability of blood in each voxel of the middle slab out.

The first convolution halves the grid and the last step doubles it again: at 1.25 mm a voxel, what is lost is finer
than the truth's polygons, and a step costs a quarter. Windows are laid inside the network, so that whoever serves it
sends HU. Written with Keras layers and `keras.ops` alone.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.settings import NetworkSettings
from triage.errors import ConfigError

RARE = -4.0  # first bias of the output: blood is in about one voxel of fifty, so training starts near the truth


@keras.saving.register_keras_serializable("ich_triage")
class Windows(layers.Layer):  # type: ignore[misc]
    """Lay windows on HU: each channel of the input once a window, scaled to -1..1."""

    def __init__(self, windows_hu: tuple[tuple[float, float], ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.windows_hu = tuple((float(low), float(high)) for low, high in windows_hu)

    def call(self, hu: Any) -> Any:
        """Give (N, Y, X, channels * windows)."""
        scaled = [ops.clip((hu - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0) for low, high in self.windows_hu]
        return ops.concatenate(scaled, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Give what the layer is built from."""
        return {**super().get_config(), "windows_hu": self.windows_hu}


def build_network(
    settings: NetworkSettings, size: tuple[int, int], *, folded: bool = False, synchronized: bool = False
) -> keras.Model:
    """Build the U-Net.

    Args:
        settings: widths, context and windows.
        size: rows and columns, multiples of two to the number of widths.
        folded: without normalisation, as it is served (`fold_normalisation` fills it).
        synchronized: normalise over the batch of all replicas, not of each alone.

    Returns:
        A model from (N, Y, X, 2 * context + 1) float32 HU to (N, Y, X) float32 logits. Its weights fit any size.

    Raises:
        ConfigError: the size cannot be halved as often as there are widths.
    """
    step = 2 ** len(settings.widths)
    if size[0] % step or size[1] % step:
        raise ConfigError(
            f"{size[0]} x {size[1]} voxels cannot be halved {len(settings.widths)} times; use multiples of {step}."
        )
    block = _Block(folded, synchronized)
    hu = keras.Input((*size, 2 * settings.context + 1), name="hu")
    x = Windows(settings.windows_hu, name="windows")(hu)
    x = block(x, settings.widths[0], size=4, strides=2, name="stem")
    skips = []
    for depth, width in enumerate(settings.widths[:-1]):
        x = block(block(x, width, name=f"down{depth}a"), width, name=f"down{depth}b")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"pool{depth}")(x)
    x = block(x, settings.widths[-1], name="bottoma")
    x = block(x, settings.widths[-1], dilation=2, name="bottomb")  # sees both halves of the brain at once
    for depth in reversed(range(len(skips))):
        x = layers.UpSampling2D(name=f"enlarge{depth}")(x)
        x = layers.Concatenate(name=f"join{depth}")([x, skips[depth]])
        x = block(x, settings.widths[depth], name=f"up{depth}a")
        if depth > 0:
            x = block(x, settings.widths[depth], name=f"up{depth}b")
    x = layers.Conv2D(1, 1, name="logit", bias_initializer=keras.initializers.Constant(RARE), dtype="float32")(x)
    x = layers.UpSampling2D(interpolation="bilinear", name="to_grid", dtype="float32")(x)
    return keras.Model(hu, ops.squeeze(x, -1), name="ich_unet")


class _Block:
    """Convolution, normalisation, rectifier; normalisation is left out where it is folded."""

    def __init__(self, folded: bool, synchronized: bool) -> None:
        self.folded = folded
        self.synchronized = synchronized

    def __call__(self, x: Any, width: int, *, name: str, size: int = 3, strides: int = 1, dilation: int = 1) -> Any:
        x = layers.Conv2D(
            width, size, strides, padding="same", dilation_rate=dilation, use_bias=self.folded, name=f"{name}_conv"
        )(x)
        if not self.folded:
            x = layers.BatchNormalization(momentum=0.97, synchronized=self.synchronized, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)


def fold_normalisation(trained: keras.Model, settings: NetworkSettings, size: tuple[int, int]) -> keras.Model:
    """Give the network as it is served: each normalisation multiplied into the convolution before it."""
    served = build_network(settings, size, folded=True)
    for layer in served.layers:
        if not layer.weights:
            continue
        source = trained.get_layer(layer.name)
        norm_name = layer.name.replace("_conv", "_norm")
        if norm_name == layer.name:
            layer.set_weights(source.get_weights())
        else:
            layer.set_weights(_folded_weights(source, trained.get_layer(norm_name)))
    return served


def _folded_weights(convolution: layers.Conv2D, norm: layers.BatchNormalization) -> list[np.ndarray[Any, Any]]:
    gamma, beta, mean, variance = norm.get_weights()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    [kernel] = convolution.get_weights()
    return [kernel * factor, beta - mean * factor]
