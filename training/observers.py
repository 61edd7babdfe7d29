"""What watches a run besides TensorBoard, tracking and validation: the terminal and the log of steps."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.loop import AnyTrainer, StepReport
from training.run_record import STEPS_FILE

STEPS_A_LINE = 50


class RunObserver:
    """Sees everything and does nothing; observers override what they need."""

    def step_done(self, report: StepReport) -> None:
        """Take the figures of one step."""

    def round_done(self, trainer: AnyTrainer) -> None:
        """Look at the network after a round; called after its checkpoint is written."""

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Take the scores of a validation."""

    def ended(self, outcome: str) -> None:
        """The run is over: `finished`, `stopped` or `failed`."""


class Together(RunObserver):
    """Several observers as one, in their order."""

    def __init__(self, *observers: RunObserver) -> None:
        self.observers = observers

    def step_done(self, report: StepReport) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.step_done(report)

    def round_done(self, trainer: AnyTrainer) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.round_done(trainer)

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.validated(step, figures)

    def ended(self, outcome: str) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.ended(outcome)


class TerminalProgress(RunObserver):
    """A bar with the time left on a terminal, a line every so many steps elsewhere."""

    def __init__(self, steps: int, done: int, console: Console | None = None) -> None:
        self.steps = steps
        self.started, self.begun_at = time.monotonic(), done
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = TextColumn("step"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}")
            self.bar = Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=self.console)
            self.task = self.bar.add_task("step", total=steps, completed=done, figures="")
            self.bar.start()

    def step_done(self, report: StepReport) -> None:
        """Move on by one step."""
        figures = f"loss {report.loss:.4f} dice {1 - report.dice_loss:.3f}"
        if self.bar is not None:
            self.bar.update(self.task, completed=report.step, figures=figures)
        elif report.step % STEPS_A_LINE == 0 or report.step == self.steps:
            rate = (time.monotonic() - self.started) / max(1, report.step - self.begun_at)
            left_min = (self.steps - report.step) * rate / 60
            self._line(f"step {report.step}/{self.steps} {figures} {rate:.2f} s a step, {left_min:.0f} min left")

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Show the scores; on a terminal they stand above the bar."""
        self._line(f"step {step} validated: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))

    def ended(self, _outcome: str) -> None:
        """Give the terminal back."""
        if self.bar is not None:
            self.bar.stop()

    def _line(self, line: str) -> None:
        if self.bar is not None:
            self.bar.console.print(line, highlight=False)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


class StepLog(RunObserver):
    """The figures of every step, one JSON line each in `steps.jsonl`: what runs are compared by."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STEPS_FILE
        self.lines: list[str] = []

    def step_done(self, report: StepReport) -> None:
        """Keep a line."""
        self.lines.append(json.dumps(asdict(report)) + "\n")

    def round_done(self, _trainer: AnyTrainer) -> None:
        """Write the round's lines; a round that was broken off and run again is then there once."""
        self._write()

    def ended(self, outcome: str) -> None:
        """Write the lines of a round that was stopped: it goes on from there. One that failed is run again."""
        if outcome == "stopped":
            self._write()

    def _write(self) -> None:
        with self.path.open("a") as file:
            file.writelines(self.lines)
        self.lines.clear()
