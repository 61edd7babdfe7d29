"""The same network and loss on JAX or PyTorch, one device: for accelerators that TensorFlow does not know.

Keras keeps one backend a process, chosen before it is imported. tf.data still reads, mixes and augments the batches,
on the CPU; the checkpoint is one that TensorFlow reads, which then exports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops

from training.batch_loss import batch_loss
from training.evaluation import Network
from training.loop import Figures, Floats, Look, Observer, run_rounds
from training.network import build_network, fold_normalisation
from training.optimiser import optimiser_of, precision
from training.pipeline import training_batches
from training.portable_checkpoint import newest_portable, read_portable, write_portable
from training.settings import RunSettings, SourceSettings
from training.widening import begin_narrower
from triage.errors import ConfigError

Batch = tuple[npt.NDArray[Any], ...]  # hu, blood and, where labels are weak, truth


class BackendTrainer:
    """A network, its optimiser and the step they have reached, on the backend that Keras was started with.

    Args:
        settings: of the run.
        converted: each source with the folder of its shards.
    """

    replicas = 1
    first_worker = True

    def __init__(self, settings: RunSettings, converted: list[tuple[SourceSettings, Path]]) -> None:
        if settings.strategy != "one":
            raise ConfigError(
                f'strategy = "{settings.strategy}" needs TensorFlow; {keras.backend.backend()} trains on one device.'
            )
        tf.config.set_visible_devices([], "GPU")  # tf.data needs none, and would take the memory of all
        self.settings = settings
        self.converted = converted
        self.folder = settings.folder / "checkpoints"
        keras.utils.set_random_seed(settings.seed)
        with precision(settings.precision):
            self.network = build_network(settings.network, settings.optimiser.crop)
            self.optimiser = optimiser_of(settings)
        self.optimiser.build(self.network.trainable_variables)
        self.steps_done = 0
        self._step = _STEPS[keras.backend.backend()](self.network, self.optimiser, settings)
        self._newest: Batch | None = None

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(ops.convert_to_numpy(self.optimiser.learning_rate))

    def restore(self) -> int:
        """Go back to the newest checkpoint; the step it holds, 0 where there is none."""
        _, path = newest_portable(self.folder)
        if path is not None:
            self.steps_done = read_portable(path, self.network, self.optimiser)
            self._step.take_from(self.network, self.optimiser)
        return self.steps_done

    def warm_start(self, source: Path) -> None:
        """Take the network's weights, and nothing else, from a checkpoint that such a run wrote, or its folder."""
        path = newest_portable(source)[1] if source.is_dir() else source
        if path is None or path.suffix != ".npz":
            raise ConfigError(f"No weights can be read from {source} without TensorFlow; name a step-*.npz.")
        if widths := self.settings.warm_start_widths:
            begin_narrower(self.network, self.settings.network, widths, lambda narrow, _: read_portable(path, narrow))
        else:
            read_portable(path, self.network)
        self._step.take_from(self.network, self.optimiser)

    def run(self, observer: Observer) -> None:
        """Train to the last step; see `run_rounds`."""
        run_rounds(self, observer)

    def batches(self, round_number: int, shown: int) -> Iterator[Batch]:
        """Give the round's batches as arrays, the same ones that TensorFlow would train on."""
        batches: Iterator[Batch] = training_batches(
            self.settings, self.converted, round_number, shown=shown
        ).as_numpy_iterator()
        return batches

    def take_step(self, batch: Batch, asked_to_stop: bool) -> Figures:
        """Move the weights once."""
        self._newest = batch
        figures = self._step(batch)
        self.steps_done += 1
        return Figures.of(figures, asked_to_stop=asked_to_stop)

    def save(self) -> None:
        """Write a checkpoint; where that fails the ones before stay whole."""
        self._step.give_to(self.network, self.optimiser)
        write_portable(self.folder, self.steps_done, self.network, self.optimiser)

    def checkpoint_files(self) -> list[Path]:
        """List the files of the newest checkpoint."""
        _, newest = newest_portable(self.folder)
        return [newest] if newest else []

    def look(self) -> Look | None:
        """Look at the newest batch, with the normalisation that is served."""
        if self._newest is None:
            return None
        self._step.give_to(self.network, self.optimiser)
        _, logits, gradients = self._step.gradients(self._newest)
        names = [weight.path for weight in self.network.trainable_variables]
        return Look(_sigmoid(logits), dict(zip(names, (_array(value) for value in gradients), strict=True)))

    def reader(self) -> Network:
        """Give the network as it would be served, as a function of arrays."""
        self._step.give_to(self.network, self.optimiser)
        grid = self.settings.grid
        served = fold_normalisation(self.network, self.settings.network, (grid.rows, grid.columns))

        def network(hu: npt.NDArray[np.int16]) -> Floats:
            slabs = hu.astype(np.float32)
            straight = served.predict_on_batch(slabs)
            mirrored = served.predict_on_batch(slabs[:, :, ::-1])[:, :, ::-1]
            return _sigmoid((straight + mirrored) / 2.0)

        return network


class JaxStep:
    """A compiled step; between `take_from` and `give_to` the values live here, since JAX changes nothing in place."""

    def __init__(self, network: keras.Model, optimiser: keras.optimizers.Optimizer, settings: RunSettings) -> None:
        import jax

        def loss(trainable: Any, untrained: Any, scale: Any, batch: Any, training: bool) -> Any:
            hu, blood, *truth = batch
            logits, untrained = network.stateless_call(trainable, untrained, hu, training=training)
            figures = batch_loss(logits, blood, truth[0] if truth else None, settings.optimiser)
            return figures[0] * scale, (figures, logits, untrained)

        differentiate = jax.value_and_grad(loss, has_aux=True)

        def step(trainable: Any, untrained: Any, state: Any, batch: Any) -> Any:
            with keras.StatelessScope(state_mapping=zip(optimiser.variables, state, strict=True)):
                scale = optimiser.scale_loss(ops.ones(()))
            (_, (figures, _, untrained)), gradients = differentiate(trainable, untrained, scale, batch, True)
            trainable, state = optimiser.stateless_apply(state, gradients, trainable)
            return figures, trainable, untrained, state

        self._step = jax.jit(step, donate_argnums=(0, 1, 2))
        self._differentiate = jax.jit(lambda t, u, batch: differentiate(t, u, 1.0, batch, False))
        self._trainable: list[Any] = []
        self._untrained: list[Any] = []
        self._state: list[Any] = []
        self.take_from(network, optimiser)

    def __call__(self, batch: Batch) -> Floats:
        """Take one step."""
        figures, self._trainable, self._untrained, self._state = self._step(
            self._trainable, self._untrained, self._state, batch
        )
        return np.asarray(figures)

    def gradients(self, batch: Batch) -> tuple[Any, Any, list[Any]]:
        """Give figures, logits and gradients, moving nothing."""
        (_, (figures, logits, _)), gradients = self._differentiate(self._trainable, self._untrained, batch)
        return figures, logits, gradients

    def take_from(self, network: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Begin with the values of the network and its optimiser."""
        self._trainable = [ops.copy(variable.value) for variable in network.trainable_variables]
        self._untrained = [ops.copy(variable.value) for variable in network.non_trainable_variables]
        self._state = [ops.copy(variable.value) for variable in optimiser.variables]

    def give_to(self, network: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Put the values back."""
        variables = (*network.trainable_variables, *network.non_trainable_variables, *optimiser.variables)
        for variable, value in zip(variables, (*self._trainable, *self._untrained, *self._state), strict=True):
            variable.assign(ops.copy(value))


class TorchStep:
    """A step in PyTorch, which keeps its values in the network itself."""

    def __init__(self, network: keras.Model, optimiser: keras.optimizers.Optimizer, settings: RunSettings) -> None:
        self.network, self.optimiser, self.settings = network, optimiser, settings

    def __call__(self, batch: Batch) -> Floats:
        """Take one step."""
        import torch

        figures, _, gradients = self._differentiated(batch, training=True)
        with torch.no_grad():
            self.optimiser.apply(gradients, self.network.trainable_variables)
        return _array(figures)

    def gradients(self, batch: Batch) -> tuple[Any, Any, list[Any]]:
        """Give figures, logits and gradients, moving nothing."""
        return self._differentiated(batch, training=False)

    def take_from(self, network: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Nothing to do: the values are the network's."""

    def give_to(self, network: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Nothing to do: the values are the network's."""

    def _differentiated(self, batch: Batch, *, training: bool) -> tuple[Any, Any, list[Any]]:
        hu, blood, *truth = (ops.convert_to_tensor(part) for part in batch)
        self.network.zero_grad()
        logits = self.network(hu, training=training)
        figures = batch_loss(logits, blood, truth[0] if truth else None, self.settings.optimiser)
        loss = self.optimiser.scale_loss(figures[0]) if training else figures[0]
        loss.backward()
        return figures, logits, [weight.value.grad for weight in self.network.trainable_variables]


_STEPS: dict[str, Callable[[keras.Model, keras.optimizers.Optimizer, RunSettings], JaxStep | TorchStep]] = {
    "jax": JaxStep,
    "torch": TorchStep,
}


def _array(tensor: Any) -> Floats:
    array: Floats = ops.convert_to_numpy(tensor)
    return array


def _sigmoid(logits: Any) -> Floats:
    return _array(ops.sigmoid(logits))
