"""One training run from its settings: convert, train, validate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from training.backend_trainer import BackendTrainer
from training.board import Board
from training.clusters import strategy_of
from training.loop import GivenUp, Stopped
from training.observers import RunObserver, StepLog, TerminalProgress, Together
from training.patients import refuse_leaks
from training.placement import read_uncompiled
from training.run_record import write_settings
from training.settings import RunSettings, SourceSettings, source_key
from training.shards import convert, data_sha256, patients_in
from training.tracking import TrackedRun, Tracking
from training.trainer import Trainer
from training.validation import Validation
from triage.errors import ConfigError

Say = Callable[[str], None]
Converted = list[tuple[SourceSettings, Path]]


def convert_sources(settings: RunSettings, sources: tuple[SourceSettings, ...], say: Say) -> Converted:
    """Convert sources to shards, each once; with the folder of each."""
    converted = []
    for source in sources:
        say(f"source {source.kind}: converting or found converted")
        converted.append((source, convert(source, settings.grid, settings.shards_folder)))
    return converted


def train_network(
    settings: RunSettings, *, resume: bool, say: Say, debugger: bool = False, watched_by: tuple[RunObserver, ...] = ()
) -> Trainer | BackendTrainer:
    """Train as the settings say, on the backend that Keras was started with.

    Args:
        settings: of the run.
        resume: go on from the newest checkpoint of the run's folder, where there is one.
        say: takes lines for the person who waits.
        debugger: dump what TensorBoard's debugger shows: every tensor's health, which costs much time and disk.
        watched_by: further observers.

    Raises:
        ConfigError: a source is not what it claims, a patient stands in two splits, or the folder holds a run that
            is not to be resumed.
        Stopped: asked to stop; a checkpoint was written.
    """
    if settings.threads and tf.config.threading.get_intra_op_parallelism_threads() != settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    if debugger:
        dump_tensors(settings.folder)
    trains_here = keras.backend.backend() == "tensorflow"
    # first: a cluster must be joined before anything else runs
    strategy = strategy_of(settings.strategy, settings.cluster) if trains_here else None
    settings.folder.mkdir(parents=True, exist_ok=True)
    converted = convert_sources(settings, settings.source, say)
    validation = convert_sources(settings, settings.validation, say)
    tested = patients_of(_converted_already(settings, settings.test))
    refuse_leaks({"source": patients_of(converted), "validation": patients_of(validation), "test": tested})
    trainer = Trainer(settings, converted, strategy) if strategy else BackendTrainer(settings, converted)
    done = _begin(trainer, settings, resume)
    if trainer.first_worker:
        write_settings(settings)
    weights = trainer.network.count_params()
    say(f"{weights} weights, {trainer.replicas} replicas on {keras.backend.backend()}, from step {done}")
    _watched(trainer, _observers(settings, [folder for _, folder in validation], trainer, done, say, watched_by))
    return trainer


def _converted_already(settings: RunSettings, sources: tuple[SourceSettings, ...]) -> Converted:
    """Give the sources that lie converted: training needs no test scans, and converts none."""
    folders = [(source, settings.shards_folder / source_key(source, settings.grid)) for source in sources]
    return [(source, folder) for source, folder in folders if folder.exists()]


def dump_tensors(folder: Path) -> None:
    """Dump what TensorBoard's debugger shows, from here on."""
    read_uncompiled()
    dump = str(folder / "board" / "debugger")
    tf.debugging.experimental.enable_dump_debug_info(dump, tensor_debug_mode="FULL_HEALTH", circular_buffer_size=-1)


def patients_of(converted: Converted) -> list[tuple[str, str]]:
    """List (source, patient) of converted sources."""
    return [patient for _, folder in converted for patient in patients_in(folder)]


def trainer_of(settings: RunSettings, *, say: Say) -> Trainer:
    """Give the trainer of a run at its newest checkpoint, on one device.

    Raises:
        ConfigError: the run has no checkpoint.
    """
    trainer = Trainer(settings, convert_sources(settings, settings.source, say), strategy_of("one"))
    if trainer.restore() == 0:
        raise ConfigError(f"{settings.folder} holds no checkpoint. Train first.")
    return trainer


def _watched(trainer: Trainer | BackendTrainer, observers: Together) -> None:
    """Run, and tell the observers how it ended."""
    outcome = "failed"
    try:
        trainer.run(observers)
        outcome = "finished"
    except (Stopped, GivenUp):
        outcome = "stopped"
        raise
    finally:
        observers.ended(outcome)


def _observers(
    settings: RunSettings,
    validation: list[Path],
    trainer: Trainer | BackendTrainer,
    done: int,
    say: Say,
    further: tuple[RunObserver, ...],
) -> Together:
    """Give what watches the run; of several workers only the first one's run is watched."""
    if not trainer.first_worker:
        return Together()
    board = Board(settings.folder / "board", settings.optimiser.batch, settings.profiled_steps)
    progress = TerminalProgress(settings.optimiser.steps, done)
    tracking = Tracking(TrackedRun(settings, data_sha256(folder for _, folder in trainer.converted), say))
    validated = Validation(settings, validation, board, (progress, tracking, *further))
    return Together(StepLog(settings.folder), board, validated, tracking, *further, progress)


def _begin(trainer: Trainer | BackendTrainer, settings: RunSettings, resume: bool) -> int:
    if not resume and trainer.checkpoint_files():
        raise ConfigError(f"{settings.folder} holds a run already. Go on with --resume, or name another folder.")
    done = trainer.restore() if resume else 0
    if done == 0 and settings.warm_start:
        trainer.warm_start(settings.warm_start)
    return done
