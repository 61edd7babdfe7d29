"""The loop of a run: rounds of steps with a checkpoint after each, whatever takes the steps.

The batches of a round depend on the run's seed and the round alone, so that a run that was broken off and gone on with
sees what an unbroken one would have seen.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from training.evaluation import Network
from training.settings import RunSettings
from triage.errors import ConfigError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """What a step came to, over the global batch; `asked_to_stop` where any worker was."""

    loss: float
    cross_entropy: float
    dice_loss: float
    slab_dice_loss: float
    weak_loss: float
    asked_to_stop: bool

    @classmethod
    def of(cls, values: Iterable[Any], *, asked_to_stop: bool) -> Figures:
        """Take them as `batch_loss` gives them."""
        loss, cross_entropy, dice_loss, slab_dice_loss, weak_loss = (float(value) for value in values)
        return cls(loss, cross_entropy, dice_loss, slab_dice_loss, weak_loss, asked_to_stop)


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
    slab_dice_loss: float = 0.0
    weak_loss: float = 0.0


@dataclass(frozen=True)
class Look:
    """The newest batch through the network as it is now: what it says, and where the loss pulls."""

    probability: Floats  # (N, Y, X)
    gradients: dict[str, Floats]  # by weight


class AnyTrainer(Protocol):
    """A network on its way: `Trainer` on TensorFlow, `BackendTrainer` on JAX or PyTorch."""

    settings: RunSettings
    network: keras.Model
    replicas: int
    first_worker: bool

    @property
    def steps_done(self) -> int:
        """Steps taken so far."""

    @property
    def learning_rate(self) -> float:
        """Of the next step."""

    def batches(self, round_number: int, shown: int) -> Iterator[Any]:
        """Give the batches of a round, without the first `shown`."""

    def take_step(self, batch: Any, asked_to_stop: bool) -> Figures:
        """Move the weights once; tell the other workers whether this one was asked to stop."""

    def save(self) -> None:
        """Write a checkpoint."""

    def checkpoint_files(self) -> list[Path]:
        """List the files of the newest checkpoint."""

    def look(self) -> Look | None:
        """Look at the newest batch; None before the first."""

    def reader(self) -> Network:
        """Give the network as it would be served, as a function of arrays."""


class Observer(Protocol):
    """What watches a run: progress on the terminal, TensorBoard, tracking, validation."""

    def step_done(self, report: StepReport) -> None:
        """Take the figures of one step."""

    def round_done(self, trainer: Any) -> None:
        """Look at the network after a round; called after its checkpoint is written."""


class Stopped(Exception):
    """The run was asked to stop and has written a checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"Stopped at step {step}; the checkpoint is written. Go on with --resume.")


class GivenUp(Exception):
    """An observer has seen enough: a trial of a search that has fallen behind the others."""


def run_rounds(trainer: AnyTrainer, observer: Observer) -> None:
    """Train to the last step, a checkpoint after each round.

    Raises:
        Stopped: SIGTERM or SIGINT came; a checkpoint was written first.
        GivenUp: an observer wants no more of it.
        ConfigError: the loss is no number any more, or a checkpoint cannot be written.
    """
    per_round, last = trainer.settings.steps_per_round, trainer.settings.optimiser.steps
    with _asked_to_stop() as asked:
        while (done := trainer.steps_done) < last:
            end = min(last, (done // per_round + 1) * per_round)
            stopped = _run_round(trainer, end, observer, asked)
            trainer.save()
            if stopped:
                raise Stopped(trainer.steps_done)
            observer.round_done(trainer)


def _run_round(trainer: AnyTrainer, end: int, observer: Observer, asked: Callable[[], bool]) -> bool:
    """Take the steps up to `end`, all in one round; whether the run was asked to stop in between."""
    round_number, shown = divmod(trainer.steps_done, trainer.settings.steps_per_round)
    batches = trainer.batches(round_number, shown)
    while trainer.steps_done < end:
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        figures = trainer.take_step(batch, asked())
        report = _report(trainer, figures, time.perf_counter() - started, waited)
        observer.step_done(report)
        if figures.asked_to_stop or (trainer.replicas == 1 and asked()):
            return True
        _refuse_no_number(report)
    return False


def _report(trainer: AnyTrainer, figures: Figures, seconds: float, waited: float) -> StepReport:
    return StepReport(
        step=trainer.steps_done,
        loss=figures.loss,
        cross_entropy=figures.cross_entropy,
        dice_loss=figures.dice_loss,
        learning_rate=trainer.learning_rate,
        seconds=seconds,
        input_wait_s=waited,
        slab_dice_loss=figures.slab_dice_loss,
        weak_loss=figures.weak_loss,
    )


def _refuse_no_number(report: StepReport) -> None:
    if not math.isfinite(report.loss):
        raise ConfigError(
            f"The loss of step {report.step} is {report.loss}. The last checkpoint was written before it. Lower "
            "optimiser.learning_rate, or find the first such number with --debugger."
        )


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
