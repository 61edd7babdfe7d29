"""The training loop: one loop for one device, all GPUs of a host, or many hosts.

Keras 3's `fit` fails under MultiWorkerMirroredStrategy, so the loop is our own: `strategy.run` for a step and
`optimizer.apply` for its gradients. The global batch, learning rate and seed mean the same on any number of replicas.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from training.losses import cross_entropy, dice_loss, dice_parts, slab_dice_loss
from training.network import build_network
from training.pipeline import training_batches
from training.settings import RunSettings, SourceSettings
from training.warm_start import BATCHES_MEASURED, start_from
from training.weak_labels import known_logits, weak_loss
from triage.errors import ConfigError

CHECKPOINTS_KEPT = 3
Converted = Sequence[tuple[SourceSettings, Path]]


@dataclass(frozen=True)
class StepReport:
    """What one step gave."""

    step: int  # from 1
    loss: float
    cross_entropy: float
    dice_loss: float
    learning_rate: float
    seconds: float
    input_wait_s: float


class Observer(Protocol):
    """What watches a run: progress on the terminal, TensorBoard."""

    def step_done(self, report: StepReport) -> None:
        """Take the figures of one step."""

    def round_done(self, trainer: Trainer) -> None:
        """Look at the network after a round; called after its checkpoint is written."""


class Stopped(Exception):
    """The run was asked to stop and has written a checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"Stopped at step {step}; the checkpoint is written. Go on with --resume.")


class Trainer:
    """A network, its optimiser and the step they have reached, under one strategy.

    Args:
        settings: of the run.
        converted: each source with the folder of its shards.
        strategy: of tf.distribute; the default strategy means one device.
    """

    def __init__(self, settings: RunSettings, converted: Converted, strategy: tf.distribute.Strategy) -> None:
        self.settings = settings
        self.converted = converted
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        if settings.optimiser.batch % self.replicas:
            raise ConfigError(
                f"A batch of {settings.optimiser.batch} slabs does not divide among {self.replicas} replicas."
            )
        keras.utils.set_random_seed(settings.seed)
        with strategy.scope():
            self.network = build_network(settings.network, settings.optimiser.crop, synchronized=self.replicas > 1)
            self.optimiser = _optimiser(settings)
            self.optimiser.build(self.network.trainable_variables)
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.first_worker = _is_first_worker(strategy)
        checkpoint = tf.train.Checkpoint(network=self.network, optimiser=self.optimiser, step=self.step)
        self.checkpoints = tf.train.CheckpointManager(
            checkpoint, str(_checkpoint_folder(settings.folder, strategy)), CHECKPOINTS_KEPT
        )
        self._train_step = tf.function(self._distributed_step)

    def restore(self) -> int:
        """Go back to the newest checkpoint; the step it holds, 0 where there is none."""
        self.checkpoints.restore_or_initialize()
        return int(self.step.numpy())

    def warm_start(self, source: Path) -> None:
        """Take the network's weights, and nothing else, from another run's checkpoints or a published version."""
        batches = training_batches(self.settings, self.converted, 0).take(BATCHES_MEASURED)
        start_from(self.network, source, self.settings.network, batches.map(lambda hu, *_truth: hu))

    def run(self, observer: Observer) -> None:
        """Train to the last step, a checkpoint after each round.

        Raises:
            Stopped: SIGTERM or SIGINT came; a checkpoint was written first.
        """
        per_round = self.settings.steps_per_round
        with _asked_to_stop() as stop:
            while (done := int(self.step.numpy())) < self.settings.optimiser.steps:
                end = min(self.settings.optimiser.steps, (done // per_round + 1) * per_round)
                self._run_round(done, end, observer, stop)
                self.checkpoints.save(checkpoint_number=int(self.step.numpy()))
                if stop():
                    raise Stopped(int(self.step.numpy()))
                observer.round_done(self)

    def _run_round(self, done: int, end: int, observer: Observer, stop: Callable[[], bool]) -> None:
        """Take the steps from `done` to `end`, all in one round; its batches depend on the round alone."""
        round_number, shown = divmod(done, self.settings.steps_per_round)
        batches = iter(self._distributed_batches(round_number, shown))
        for step in range(done + 1, end + 1):
            started = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - started
            figures = self._train_step(batch)
            loss, entropy, dice = (float(value) for value in figures)
            self.step.assign(step)
            rate = float(self.optimiser.learning_rate)
            observer.step_done(StepReport(step, loss, entropy, dice, rate, time.perf_counter() - started, waited))
            if stop():
                return

    def _distributed_batches(self, round_number: int, shown: int) -> Any:
        """Give the round's batches, each replica its part; every process reads the same stream and takes its own."""

        def batches_of(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = training_batches(self.settings, self.converted, round_number).skip(shown)
            local = self.replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local

            def own_parts(*tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
                return tuple(_parts(tensor, self.replicas)[first : first + local] for tensor in tensors)

            return batches if self.replicas == 1 else batches.map(own_parts).unbatch()

        return self.strategy.distribute_datasets_from_function(batches_of)

    def _distributed_step(self, batch: tuple[tf.Tensor, ...]) -> Any:
        per_replica = self.strategy.run(self._replica_step, args=batch)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    def _replica_step(self, hu: tf.Tensor, blood: tf.Tensor, truth: tf.Tensor | None = None) -> tf.Tensor:
        """Take one step with this replica's part; its share of (loss, cross-entropy, Dice loss) of the global batch."""
        optimiser = self.settings.optimiser
        with tf.GradientTape() as tape:
            logits = self.network(hu, training=True)
            weak = 0.0 if truth is None else weak_loss(logits, truth)
            logits = logits if truth is None else known_logits(logits, truth)
            entropy = cross_entropy(logits, blood)
            parts = dice_parts(logits, blood)
            if self.replicas > 1:
                parts = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, parts)
            dice = dice_loss(parts)
            # the optimiser adds up the replicas' gradients, so each brings its share of the mean
            strong = optimiser.cross_entropy_weight * entropy + optimiser.dice_weight * dice
            strong += optimiser.slab_dice_weight * slab_dice_loss(logits, blood)
            loss = (strong + optimiser.weak_weight * weak) / self.replicas
        gradients = tape.gradient(loss, self.network.trainable_variables)
        self.optimiser.apply(gradients, self.network.trainable_variables)
        return tf.stack([loss, entropy / self.replicas, dice / self.replicas])


def strategy_of(name: str) -> tf.distribute.Strategy:
    """Give the strategy of that name; several hosts are found in TF_CONFIG."""
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _optimiser(settings: RunSettings) -> keras.optimizers.Optimizer:
    chosen = settings.optimiser
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=chosen.learning_rate / max(1, chosen.warmup_steps),
        decay_steps=max(1, chosen.steps - chosen.warmup_steps),
        alpha=0.01,
        warmup_target=chosen.learning_rate,
        warmup_steps=chosen.warmup_steps,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=chosen.weight_decay)


def _parts(tensor: tf.Tensor, count: int) -> tf.Tensor:
    shape = tf.shape(tensor)
    return tf.reshape(tensor, tf.concat([[count, shape[0] // count], shape[1:]], axis=0))


def _checkpoint_folder(folder: Path, strategy: tf.distribute.Strategy) -> Path:
    """Give the folder of checkpoints; all workers write, since each must be able to go on by itself."""
    if _is_first_worker(strategy):
        return folder / "checkpoints"
    resolver = strategy.cluster_resolver
    return folder / f"checkpoints-{resolver.task_type}-{resolver.task_id}"


def _is_first_worker(strategy: tf.distribute.Strategy) -> bool:
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return bool(resolver.task_type == "chief" or (resolver.task_type == "worker" and resolver.task_id == 0))


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Notice SIGTERM and SIGINT instead of dying of them."""
    asked = False

    def note(_signal: int, _frame: object) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
