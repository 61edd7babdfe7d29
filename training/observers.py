"""What watches a run: the terminal, TensorBoard and the scores on validation patients."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.evaluation import SCORE_ML, VOXEL_LINES, StudyResult, evaluate_scans, mean_slice_dice, study_auc
from training.network import fold_normalisation
from training.run_record import STEPS_FILE, VALIDATION_FILE, StudyFigures, study_figures, write_studies
from training.serving_network import array_network
from training.settings import RunSettings
from training.shards import read_scans
from training.trainer import StepReport, Trainer

STEPS_A_LINE = 50
STEPS_A_SCALAR = 10


class Together:
    """Several observers as one, in their order."""

    def __init__(self, *observers: object) -> None:
        self.observers = observers

    def step_done(self, report: StepReport) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.step_done(report)  # type: ignore[attr-defined]

    def round_done(self, trainer: Trainer) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.round_done(trainer)  # type: ignore[attr-defined]


class TerminalProgress:
    """A bar with the time left on a terminal, a line every so many steps elsewhere."""

    def __init__(self, steps: int, done: int) -> None:
        self.steps = steps
        self.started, self.begun_at = time.monotonic(), done
        self.bar: Progress | None = None
        if sys.stderr.isatty():
            columns = TextColumn("step"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}")
            self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self.task = self.bar.add_task("step", total=steps, completed=done, figures="")
            self.bar.start()

    def step_done(self, report: StepReport) -> None:
        """Move on by one step."""
        figures = f"loss {report.loss:.4f} dice {1 - report.dice_loss:.3f}"
        if self.bar is not None:
            self.bar.update(self.task, completed=report.step, figures=figures)
            if report.step == self.steps:
                self.bar.stop()
        elif report.step % STEPS_A_LINE == 0 or report.step == self.steps:
            rate = (time.monotonic() - self.started) / max(1, report.step - self.begun_at)
            left_min = (self.steps - report.step) * rate / 60
            line = f"step {report.step}/{self.steps} {figures} {rate:.2f} s a step, {left_min:.0f} min left"
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def round_done(self, _trainer: Trainer) -> None:
        """Nothing to show."""


class StepLog:
    """The figures of every step, one JSON line each in `steps.jsonl`: what runs are compared by."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STEPS_FILE
        self.lines: list[str] = []

    def step_done(self, report: StepReport) -> None:
        """Keep a line."""
        self.lines.append(json.dumps(asdict(report)) + "\n")

    def round_done(self, _trainer: Trainer) -> None:
        """Write the round's lines; a round that was broken off and run again is then there once."""
        with self.path.open("a") as file:
            file.writelines(self.lines)
        self.lines.clear()


class Board:
    """TensorBoard: loss by part, rates, histograms, pictures of slab, truth and prediction, and the graph."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.writer = tf.summary.create_file_writer(str(folder))
        self.batch = batch
        self.graph_written = False

    def step_done(self, report: StepReport) -> None:
        """Write scalars."""
        if report.step % STEPS_A_SCALAR:
            return
        with self.writer.as_default(step=report.step):
            tf.summary.scalar("loss/total", report.loss)
            tf.summary.scalar("loss/cross_entropy", report.cross_entropy)
            tf.summary.scalar("loss/dice", report.dice_loss)
            tf.summary.scalar("learning_rate", report.learning_rate)
            tf.summary.scalar("speed/slabs_per_s", self.batch / report.seconds)
            tf.summary.scalar("speed/input_wait_share", report.input_wait_s / report.seconds)

    def round_done(self, trainer: Trainer) -> None:
        """Write histograms of weights, and once the graph."""
        with self.writer.as_default(step=int(trainer.step.numpy())):
            for weight in trainer.network.trainable_variables:
                tf.summary.histogram(f"weights/{weight.path}", weight)
            if not self.graph_written:
                spec = tf.TensorSpec(trainer.network.input_shape, tf.float32)
                tf.summary.graph(tf.function(trainer.network).get_concrete_function(spec).graph)
                self.graph_written = True
        self.writer.flush()

    def validated(self, step: int, figures: dict[str, float], pictures: np.ndarray | None) -> None:
        """Write the scores of a validation and the pictures of its worst slabs."""
        with self.writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"validation/{name}", value)
            if pictures is not None:
                tf.summary.image("validation/slab, truth, prediction", pictures, max_outputs=len(pictures))
        self.writer.flush()


class Validation:
    """The scores on validation patients every few rounds, one JSON line each in `validation.jsonl`."""

    def __init__(self, settings: RunSettings, folders: Sequence[Path], board: Board | None) -> None:
        self.settings = settings
        self.folders = folders
        self.board = board
        self.rounds = 0

    def step_done(self, report: StepReport) -> None:
        """Nothing to do."""

    def round_done(self, trainer: Trainer) -> None:
        """Validate after every so many rounds and after the last."""
        self.rounds += 1
        step = int(trainer.step.numpy())
        last = step >= self.settings.optimiser.steps
        if not self.folders or (self.rounds % self.settings.rounds_per_validation and not last):
            return
        grid = self.settings.grid
        network = array_network(fold_normalisation(trainer.network, self.settings.network, (grid.rows, grid.columns)))
        figures: dict[str, float] = {}
        studies: list[StudyFigures] = []
        for folder in self.folders:
            results = evaluate_scans(read_scans(folder), network, self.settings.network.context)
            figures.update(figures_of(results, folder.name.rpartition("-")[0]))
            studies.extend(study_figures(results))
        write_studies(self.settings.folder, studies)
        with (self.settings.folder / VALIDATION_FILE).open("a") as file:
            file.write(json.dumps({"step": step, **{name: round(value, 4) for name, value in figures.items()}}) + "\n")
        if self.board is not None:
            self.board.validated(step, figures, None)


def figures_of(results: Sequence[StudyResult], name: str) -> dict[str, float]:
    """Give the figures that a validation follows: area under the curve of studies, Dice of slabs with blood."""
    return {
        f"{name}/study_auc": study_auc(results, SCORE_ML.index(1.0)),
        f"{name}/slice_dice": float(mean_slice_dice(results)[VOXEL_LINES.index(0.5)]),
    }
