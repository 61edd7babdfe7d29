"""Growing a trained network wider without forgetting: Net2WiderNet (Chen et al. 2016, arXiv:1511.05641).

A channel of the narrow network stands for several of the wide one, and what reads them shares its weights out among
them. The shares are random, each weight's own: copies that were read alike would be moved alike, and stay copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.network import Windows, build_network
from training.settings import NetworkSettings
from triage.errors import ConfigError

WIDENING_SEED = 1  # of the shares in a run's warm start
SHARE_SD = 0.25  # of a copy's share of a weight

Arrays = list[npt.NDArray[np.float32]]
Channels = npt.NDArray[np.int64]  # for each channel of the wide network the one of the narrow network that it repeats


def begin_narrower(
    wide: keras.Model,
    settings: NetworkSettings,
    widths: tuple[int, ...],
    read: Callable[[keras.Model, NetworkSettings], object],
) -> None:
    """Fill a network from the weights of a narrower one that lie somewhere.

    Args:
        wide: changed in place.
        settings: of `wide`.
        widths: of the narrower one.
        read: fills the narrower one, which it is given with its settings.

    Raises:
        ConfigError: as by `widen`, and what `read` raises.
    """
    narrow_settings = settings.model_copy(update={"widths": widths})
    narrow = build_network(narrow_settings, wide.input_shape[1:3])
    read(narrow, narrow_settings)
    widen(narrow, wide, WIDENING_SEED)


def widen(narrow: keras.Model, wide: keras.Model, seed: int) -> None:
    """Fill a network from a narrower one of the same layers, so that both are the same function.

    Args:
        narrow: trained.
        wide: with at least as many channels in each layer; changed in place.
        seed: of the shares.

    Raises:
        ConfigError: `wide` has other layers, or fewer channels in one.
    """
    if [layer.name for layer in narrow.layers if layer.weights] != [
        layer.name for layer in wide.layers if layer.weights
    ]:
        raise ConfigError("A network can be widened from one of the same depth only; warm_start_widths names another.")
    rng = np.random.default_rng(seed)
    for layer in wide.layers:
        if not layer.weights:
            continue
        weights = narrow.get_layer(layer.name).get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *bias = weights
            read, written = _repeated(layer.input, narrow), _repeated(layer.output, narrow)
            kernel = kernel[:, :, read][..., written]  # (Y, X, channels read, channels written)
            layer.set_weights([kernel * _shares(read, kernel.shape, rng), *(each[written] for each in bias)])
        else:
            layer.set_weights([each[_repeated(layer.output, narrow)] for each in weights])


def _repeated(tensor: Any, narrow: keras.Model) -> Channels:
    """Follow a tensor of the wide network back to the convolutions that made its channels."""
    layer = tensor._keras_history.operation
    if isinstance(layer, keras.layers.Conv2D):
        before, after = int(narrow.get_layer(layer.name).filters), int(layer.filters)
        if after < before:
            raise ConfigError(f"The layer {layer.name} cannot be widened from {before} channels to {after}.")
        return np.arange(after) % before
    if isinstance(layer, keras.layers.Concatenate):
        starts = np.cumsum([0, *(part.shape[-1] for part in narrow.get_layer(layer.name).input)])
        parts = [start + _repeated(part, narrow) for start, part in zip(starts, layer.input, strict=False)]
        channels: Channels = np.concatenate(parts)
        return channels
    if isinstance(layer, Windows):
        return np.arange(int(tensor.shape[-1]))
    return _repeated(layer.input, narrow)


def _shares(read: Channels, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Give each weight's share, which those of all copies of a channel add up to one with."""
    shares = rng.normal(0.0, SHARE_SD, shape)
    for channel in np.unique(read):
        copies = read == channel
        shares[:, :, copies] += (1.0 - shares[:, :, copies].sum(axis=2, keepdims=True)) / copies.sum()
    return shares.astype(np.float32)
