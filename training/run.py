"""One training run from its settings: convert, train, validate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from training.observers import Board, StepLog, TerminalProgress, Together, Validation
from training.patients import refuse_leaks
from training.run_record import write_settings
from training.settings import RunSettings, SourceSettings
from training.shards import convert, patients_in
from training.trainer import Trainer, strategy_of
from triage.errors import ConfigError


def convert_sources(
    settings: RunSettings, sources: tuple[SourceSettings, ...], say: Callable[[str], None]
) -> list[tuple[SourceSettings, Path]]:
    """Convert sources to shards, each once; with the folder of each."""
    converted = []
    for source in sources:
        say(f"source {source.kind}: converting or found converted")
        converted.append((source, convert(source, settings.grid, settings.shards_folder)))
    return converted


def train_network(settings: RunSettings, *, resume: bool, say: Callable[[str], None]) -> Trainer:
    """Train as the settings say.

    Args:
        settings: of the run.
        resume: go on from the newest checkpoint of the run's folder.
        say: takes lines for the person who waits.

    Raises:
        ConfigError: a source is not what it claims, a patient stands in two splits, or the folder holds a run that
            is not to be resumed.
        Stopped: asked to stop; a checkpoint was written.
    """
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    strategy = strategy_of(settings.strategy)  # first: a cluster must be joined before anything else runs
    settings.folder.mkdir(parents=True, exist_ok=True)
    converted = convert_sources(settings, settings.source, say)
    validation = convert_sources(settings, settings.validation, say)
    refuse_leaks({"source": _patients(converted), "validation": _patients(validation)})
    trainer = Trainer(settings, converted, strategy)
    done = _begin(trainer, settings, resume)
    write_settings(settings)
    say(f"{trainer.network.count_params()} weights, {trainer.replicas} replicas, from step {done}")
    trainer.run(_observers(settings, [folder for _, folder in validation], trainer, done))
    return trainer


def _patients(converted: list[tuple[SourceSettings, Path]]) -> list[tuple[str, str]]:
    """List (source, patient) of converted sources."""
    return [patient for _, folder in converted for patient in patients_in(folder)]


def _observers(settings: RunSettings, validation: list[Path], trainer: Trainer, done: int) -> Together:
    """Give what watches the run; of several workers only the first one's run is watched."""
    if not trainer.first_worker:
        return Together()
    board = Board(settings.folder / "board", settings.optimiser.batch)
    return Together(
        TerminalProgress(settings.optimiser.steps, done),
        StepLog(settings.folder),
        board,
        Validation(settings, validation, board),
    )


def trainer_of(settings: RunSettings, *, say: Callable[[str], None]) -> Trainer:
    """Give the trainer of a run at its newest checkpoint.

    Raises:
        ConfigError: the run has no checkpoint.
    """
    trainer = Trainer(settings, convert_sources(settings, settings.source, say), strategy_of(settings.strategy))
    if trainer.restore() == 0:
        raise ConfigError(f"{settings.folder} holds no checkpoint. Train first.")
    return trainer


def _begin(trainer: Trainer, settings: RunSettings, resume: bool) -> int:
    if resume:
        return trainer.restore()
    if trainer.checkpoints.latest_checkpoint:
        raise ConfigError(f"{settings.folder} holds a run already. Go on with --resume, or name another folder.")
    if settings.warm_start:
        trainer.warm_start(settings.warm_start)
    return 0
