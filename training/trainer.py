"""A network on TensorFlow under any strategy of tf.distribute: one device, all GPUs of a host, or many hosts.

Keras 3's `fit` fails under MultiWorkerMirroredStrategy, so a step is our own: `strategy.run` for its parts and
`optimizer.apply` for its gradients. The global batch, learning rate and seed mean the same on any number of replicas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.batch_loss import batch_loss
from training.clusters import addresses_of, is_first_worker
from training.evaluation import Network
from training.loop import Figures, Look, Observer, run_rounds
from training.network import build_network, fold_normalisation
from training.optimiser import optimiser_of, precision
from training.pipeline import Part, training_batches
from training.portable_checkpoint import newest_portable, read_portable
from training.serving_network import array_network
from training.settings import RunSettings, SourceSettings
from training.warm_start import BATCHES_MEASURED, start_from
from triage.errors import ConfigError

CHECKPOINTS_KEPT = 3
CHECKPOINTS = "checkpoints"  # folder of the first worker's; the others' have their task's name behind
Converted = Sequence[tuple[SourceSettings, Path]]


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
        with strategy.scope(), precision(settings.precision):
            self.network = build_network(settings.network, settings.optimiser.crop, synchronized=self.replicas > 1)
            self.optimiser = optimiser_of(settings)
            self.optimiser.build(self.network.trainable_variables)
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.first_worker = is_first_worker(strategy)
        self._cluster = addresses_of(strategy.cluster_resolver) if strategy.cluster_resolver else ()
        self._checkpoint = tf.train.Checkpoint(network=self.network, optimiser=self.optimiser, step=self.step)
        self.checkpoints = tf.train.CheckpointManager(
            self._checkpoint, str(_checkpoint_folder(settings.folder, strategy)), CHECKPOINTS_KEPT
        )
        # on several hosts the sums go through collectives, which XLA does not compile on a CPU
        self._replica_step_compiled = tf.function(self._replica_step, jit_compile=settings.xla or None)
        self._train_step = tf.function(self._distributed_step)
        self._newest: tuple[tf.Tensor, ...] | None = None

    @property
    def steps_done(self) -> int:
        """Steps taken so far."""
        return int(self.step.numpy())

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimiser.learning_rate)

    def restore(self) -> int:
        """Go back to the newest checkpoint that all workers have; the step it holds, 0 where there is none.

        Raises:
            ConfigError: the workers have no checkpoint in common, or the folder's is of another network.
        """
        own = self._own_checkpoints()
        agreed = self._least_of_all_workers(max(own, default=0))
        if agreed and agreed not in own:
            raise ConfigError(
                f"The workers have checkpoints in common up to step {agreed}, this one has {sorted(own)}. "
                f"Copy the others' into {self.checkpoints.directory}, or begin anew."
            )
        if agreed:
            self._restore(own[agreed])
        return self.steps_done

    def warm_start(self, source: Path) -> None:
        """Take the network's weights, and nothing else, from another run's checkpoints or a published version."""
        batches = training_batches(self.settings, self.converted, 0).take(BATCHES_MEASURED)
        slabs = batches.map(lambda hu, *_truth: hu)
        start_from(self.network, source, self.settings.network, slabs, self.settings.warm_start_widths)

    def run(self, observer: Observer) -> None:
        """Train to the last step; see `run_rounds`."""
        run_rounds(self, observer)

    def batches(self, round_number: int, shown: int) -> Iterator[Any]:
        """Give the round's batches, each replica its part; every process reads the same stream and changes its own."""

        def batches_of(context: tf.distribute.InputContext) -> tf.data.Dataset:
            count = self.replicas // context.num_input_pipelines
            part = Part(context.input_pipeline_id * count, count, self.replicas)
            own = training_batches(self.settings, self.converted, round_number, shown=shown, part=part)
            # said to be endless, a batch needs no word with the other workers whether they have one too
            return own.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        return iter(self.strategy.distribute_datasets_from_function(batches_of))

    def take_step(self, batch: tuple[Any, ...], asked_to_stop: bool) -> Figures:
        """Move the weights once; all workers learn whether any of them was asked to stop.

        Raises:
            ConfigError: another worker is lost.
        """
        self._newest = batch
        with self._others_there():
            *figures, asked = self._train_step(batch, tf.constant(float(asked_to_stop))).numpy().tolist()
        self.step.assign_add(1)
        return Figures.of(figures, asked_to_stop=asked > 0)

    def save(self) -> None:
        """Write a checkpoint; where that fails the ones before stay whole.

        Raises:
            ConfigError: the disk is full or cannot be written.
        """
        try:
            self.checkpoints.save(checkpoint_number=self.steps_done)
        except (tf.errors.OpError, OSError) as error:
            kept = self.checkpoints.latest_checkpoint
            raise ConfigError(
                f"The checkpoint of step {self.steps_done} cannot be written to {self.checkpoints.directory}: "
                f"{str(error).splitlines()[0]}. The newest whole one is {Path(kept).name if kept else 'none'}; make "
                "room and go on with --resume."
            ) from error

    def checkpoint_files(self) -> list[Path]:
        """List the files of the newest checkpoint."""
        newest = Path(self.checkpoints.latest_checkpoint or "none")
        return sorted(newest.parent.glob(f"{newest.name}.*"))

    def look(self) -> Look | None:
        """Look at this process' part of the newest batch, with the normalisation that is served."""
        if self._newest is None:
            return None
        batch = [self.strategy.experimental_local_results(part)[0] for part in self._newest]
        probability, gradients = self._look(*batch)
        names = [weight.path for weight in self.network.trainable_variables]
        return Look(probability.numpy(), dict(zip(names, (value.numpy() for value in gradients), strict=True)))

    def reader(self) -> Network:
        """Give the network as it would be served, as a function of arrays."""
        grid = self.settings.grid
        return array_network(fold_normalisation(self.network, self.settings.network, (grid.rows, grid.columns)))

    @contextmanager
    def _others_there(self) -> Iterator[None]:
        """Name the loss of another worker, in whichever sum over all of them it shows."""
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if len(self._cluster) < 2:
                raise
            raise ConfigError(
                f"Another worker of {', '.join(self._cluster)} was lost after step {self.steps_done}. "
                "Start all of them again with --resume."
            ) from error

    def _distributed_step(self, batch: tuple[tf.Tensor, ...], asked_to_stop: tf.Tensor) -> Any:
        per_replica = self.strategy.run(self._replica_step_compiled, args=(asked_to_stop, *batch))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    def _replica_step(
        self, asked_to_stop: tf.Tensor, hu: tf.Tensor, blood: tf.Tensor, truth: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Take one step with this replica's part; its share of the figures of the global batch."""
        with tf.GradientTape() as tape:
            # the optimiser adds up the replicas' gradients, so each brings its share of the mean
            figures = self._loss(self.network(hu, training=True), blood, truth) / self.replicas
            loss = self.optimiser.scale_loss(figures[0])
        gradients = tape.gradient(loss, self.network.trainable_variables)
        self.optimiser.apply(gradients, self.network.trainable_variables)
        return tf.concat([figures, asked_to_stop[None]], axis=0)

    def _loss(self, logits: tf.Tensor, blood: tf.Tensor, truth: tf.Tensor | None) -> tf.Tensor:
        def added_up(parts: tf.Tensor) -> tf.Tensor:
            if self.replicas == 1:
                return parts
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, parts)

        return batch_loss(logits, blood, truth, self.settings.optimiser, added_up)

    @tf.function  # type: ignore[untyped-decorator]
    def _look(
        self, hu: tf.Tensor, blood: tf.Tensor, truth: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = self.network(hu, training=False)
            loss = batch_loss(logits, blood, truth, self.settings.optimiser)[0]
        return tf.sigmoid(logits), tape.gradient(loss, self.network.trainable_variables)

    def _own_checkpoints(self) -> dict[int, str]:
        """Find the checkpoints that this process can read, by step: its own, and on a shared disk the first."""
        found: dict[int, str] = {}
        for folder in (self.settings.folder / CHECKPOINTS, Path(self.checkpoints.directory)):
            state = tf.train.get_checkpoint_state(str(folder))
            for path in state.all_model_checkpoint_paths if state else ():
                found[int(path.rpartition("-")[2])] = path
        step, portable = newest_portable(self.settings.folder / CHECKPOINTS)
        return found | ({step: str(portable)} if portable else {})

    def _restore(self, path: str) -> None:
        if path.endswith(".npz"):
            self.step.assign(read_portable(Path(path), self.network, self.optimiser))
            return
        try:
            self._checkpoint.restore(path).assert_existing_objects_matched()
        except (tf.errors.OpError, ValueError, AssertionError) as error:
            raise ConfigError(f"The checkpoint {path} is not of the network that the settings name.") from error

    def _least_of_all_workers(self, step: int) -> int:
        """Give the smallest of the workers' steps: one may have died before it wrote what the others have."""
        if len(self._cluster) < 2:
            return step
        values = self.strategy.experimental_distribute_values_from_function(lambda _context: tf.constant([step]))
        return int(self.strategy.gather(values, axis=0).numpy().min())


def _checkpoint_folder(folder: Path, strategy: tf.distribute.Strategy) -> Path:
    """Give the folder of checkpoints; all workers write, since each must be able to go on by itself."""
    if is_first_worker(strategy):
        return folder / CHECKPOINTS
    resolver = strategy.cluster_resolver
    return folder / f"{CHECKPOINTS}-{resolver.task_type}-{resolver.task_id}"
