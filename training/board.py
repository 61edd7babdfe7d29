"""TensorBoard: loss by part, speed, histograms, the graph, a profiler's trace, curves and pictures of a validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorboard.plugins.pr_curve import summary as pr_curve  # type: ignore[import-untyped]

from training.loop import AnyTrainer, StepReport
from training.observers import RunObserver

STEPS_A_SCALAR = 10
STEPS_BEFORE_TRACE = 10  # tracing of the graph and filling of the shuffle say nothing of a usual step


class Board(RunObserver):
    """Writes events of one run.

    Args:
        folder: of the events.
        batch: slabs a step.
        profiled_steps: traced once by the profiler, a few steps after the start; 0: none.
    """

    def __init__(self, folder: Path, batch: int, profiled_steps: int = 0) -> None:
        self.folder = folder
        self.writer = tf.summary.create_file_writer(str(folder))
        self.batch = batch
        self.profiled_steps = profiled_steps
        self.steps_seen = 0
        self.profiling = False
        self.graph_written = False

    def step_done(self, report: StepReport) -> None:
        """Write scalars, and trace a few steps."""
        self.steps_seen += 1
        self._profile()
        if report.step % STEPS_A_SCALAR:
            return
        with self.writer.as_default(step=report.step):
            tf.summary.scalar("loss/total", report.loss)
            tf.summary.scalar("loss/cross_entropy", report.cross_entropy)
            tf.summary.scalar("loss/dice", report.dice_loss)
            tf.summary.scalar("loss/slab_dice", report.slab_dice_loss)
            tf.summary.scalar("loss/weak_labels", report.weak_loss)
            tf.summary.scalar("dice", 1.0 - report.dice_loss)
            tf.summary.scalar("learning_rate", report.learning_rate)
            tf.summary.scalar("speed/slabs_per_s", self.batch / report.seconds)
            tf.summary.scalar("speed/input_wait_share", report.input_wait_s / report.seconds)

    def round_done(self, trainer: AnyTrainer) -> None:
        """Write histograms of weights, gradients and predicted probability, and once the graph."""
        with self.writer.as_default(step=trainer.steps_done):
            for weight in trainer.network.trainable_variables:
                tf.summary.histogram(f"weights/{weight.path}", weight.numpy())
            if look := trainer.look():
                tf.summary.histogram("probability/voxels", look.probability)
                tf.summary.histogram("probability/highest of a slab", look.probability.max(axis=(1, 2)))
                for path, gradient in look.gradients.items():
                    tf.summary.histogram(f"gradients/{path}", gradient)
            if not self.graph_written and keras.backend.backend() == "tensorflow":
                spec = tf.TensorSpec(trainer.network.input_shape, tf.float32)
                tf.summary.graph(tf.function(trainer.network).get_concrete_function(spec).graph)
                self.graph_written = True
        self.writer.flush()

    def show_validation(
        self,
        step: int,
        figures: dict[str, float],
        counts: Sequence[npt.NDArray[np.int64]],
        pictures: Sequence[npt.NDArray[np.uint8]],
    ) -> None:
        """Write the scores, the precision-recall curve of voxels and the pictures of the worst slabs.

        Args:
            step: of the network that was validated.
            figures: scores by name.
            counts: true positives, false positives, true negatives, false negatives at lines from 0 to 1.
            pictures: (Y, X) grey, of any sizes.
        """
        with self.writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"validation/{name}", value)
            tf.summary.experimental.write_raw_pb(_curve(counts), step=step)
            for place, picture in enumerate(pictures, start=1):
                shown = picture[None, ..., None]
                tf.summary.image(f"worst slabs/{place:02d}: slab, truth, prediction", shown)
        self.writer.flush()

    def ended(self, _outcome: str) -> None:
        """Close what is open."""
        if self.profiling:
            tf.profiler.experimental.stop()
            self.profiling = False
        self.writer.flush()

    def _profile(self) -> None:
        """Begin and end the trace between steps."""
        if self.profiled_steps and self.steps_seen == STEPS_BEFORE_TRACE:
            tf.profiler.experimental.start(str(self.folder))
            self.profiling = True
        elif self.profiling and self.steps_seen == STEPS_BEFORE_TRACE + self.profiled_steps:
            tf.profiler.experimental.stop()
            self.profiling = False


def _curve(counts: Sequence[npt.NDArray[np.int64]]) -> bytes:
    true_positive, false_positive, _, false_negative = counts
    precision = true_positive / np.maximum(true_positive + false_positive, 1)
    recall = true_positive / np.maximum(true_positive + false_negative, 1)
    found: bytes = pr_curve.raw_data_pb(
        "validation/voxels", *counts, precision, recall, num_thresholds=len(precision)
    ).SerializeToString()
    return found
