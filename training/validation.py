"""The scores on validation patients every few rounds, with what TensorBoard shows of them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.board import Board
from training.evaluation import (
    POSITIVE_SHARE,
    SCORE_ML,
    VOXEL_LINES,
    StudyResult,
    mean_slice_dice,
    predict_scan,
    result_of,
    study_auc,
)
from training.labelled_scan import LabelledSlabs
from training.loop import AnyTrainer
from training.observers import RunObserver
from training.run_record import VALIDATION_FILE, StudyFigures, study_figures, write_studies
from training.settings import RunSettings
from training.shards import read_scans
from triage.reading import FloatMap

WORST_SLABS = 10
CURVE_LINES = 101  # of the precision-recall curve, from 0 to 1

Picture = npt.NDArray[np.uint8]


@dataclass
class VoxelCurve:
    """Voxels by their probability, with blood and without: the precision-recall curve of voxels."""

    blood: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(CURVE_LINES, np.int64))
    free: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(CURVE_LINES, np.int64))

    def add(self, probability: FloatMap, truth: npt.NDArray[np.bool_]) -> None:
        """Count the voxels of a scan, each at the highest line that its probability reaches."""
        reached = (probability * (CURVE_LINES - 1)).astype(np.int64)
        self.blood += np.bincount(reached[truth], minlength=CURVE_LINES)
        self.free += np.bincount(reached[~truth], minlength=CURVE_LINES)

    def counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Give true positives, false positives, true negatives and false negatives at each line."""
        true_positive = self.blood[::-1].cumsum()[::-1]
        false_positive = self.free[::-1].cumsum()[::-1]
        return true_positive, false_positive, self.free.sum() - false_positive, self.blood.sum() - true_positive


class WorstSlabs:
    """The slabs of a validation with most voxels on the wrong side of 0.5, as pictures."""

    def __init__(self, kept: int = WORST_SLABS) -> None:
        self.kept = kept
        self._heap: list[tuple[int, int, Picture]] = []
        self._order = count()  # pictures of the same badness cannot be compared

    def add(self, scan: LabelledSlabs, probability: FloatMap, truth: npt.NDArray[np.bool_]) -> None:
        """Keep those of a scan's slabs that are among the worst."""
        wrong = ((probability >= 0.5) != truth).sum(axis=(1, 2))
        for slab in np.argsort(-wrong)[: self.kept]:
            if len(self._heap) == self.kept and wrong[slab] <= self._heap[0][0]:
                break
            picture = beside_each_other(scan.hu[slab], truth[slab], probability[slab])
            heapq.heappush(self._heap, (int(wrong[slab]), next(self._order), picture))
            if len(self._heap) > self.kept:
                heapq.heappop(self._heap)

    def pictures(self) -> list[Picture]:
        """Give them, worst first: slab, truth and prediction beside each other."""
        return [picture for _, _, picture in sorted(self._heap, key=lambda entry: -entry[0])]


class Validation(RunObserver):
    """Scores the network on validation patients every few rounds; a JSON line each in `validation.jsonl`.

    Args:
        settings: of the run.
        folders: of the converted validation sources.
        board: takes curves and pictures; none: they are not drawn.
        told: takes the scores.
    """

    def __init__(
        self, settings: RunSettings, folders: Sequence[Path], board: Board | None, told: Sequence[RunObserver]
    ) -> None:
        self.settings = settings
        self.folders = folders
        self.board = board
        self.told = told

    def round_done(self, trainer: AnyTrainer) -> None:
        """Validate after every so many rounds and after the last."""
        rounds = trainer.steps_done // self.settings.steps_per_round  # of the run, however often it was broken off
        last = trainer.steps_done >= self.settings.optimiser.steps
        if not self.folders or (rounds % self.settings.rounds_per_validation and not last):
            return
        figures: dict[str, float] = {}
        studies: list[StudyFigures] = []
        curve, worst = VoxelCurve(), WorstSlabs()
        network = trainer.reader()
        for folder in self.folders:
            results = []
            for scan in read_scans(folder):
                probability = predict_scan(scan, network, self.settings.network.context)
                results.append(result_of(scan, probability))
                truth = scan.blood >= POSITIVE_SHARE
                curve.add(probability, truth)
                worst.add(scan, probability, truth)
            figures.update(figures_of(results, folder.name.rpartition("-")[0]))
            studies.extend(study_figures(results))
        self._tell(trainer.steps_done, figures, studies, curve, worst)

    def _tell(
        self, step: int, figures: dict[str, float], studies: list[StudyFigures], curve: VoxelCurve, worst: WorstSlabs
    ) -> None:
        write_studies(self.settings.folder, studies)
        with (self.settings.folder / VALIDATION_FILE).open("a") as file:
            file.write(json.dumps({"step": step, **{name: round(value, 4) for name, value in figures.items()}}) + "\n")
        if self.board is not None:
            self.board.show_validation(step, figures, curve.counts(), worst.pictures())
        for observer in self.told:
            observer.validated(step, figures)


def figures_of(results: Sequence[StudyResult], name: str) -> dict[str, float]:
    """Give the figures that a validation follows: area under the curve of studies, Dice of slabs with blood."""
    return {
        f"{name}/study_auc": study_auc(results, SCORE_ML.index(1.0)),
        f"{name}/slice_dice": float(mean_slice_dice(results)[VOXEL_LINES.index(0.5)]),
    }


def beside_each_other(hu: npt.NDArray[np.int16], truth: npt.NDArray[np.bool_], probability: FloatMap) -> Picture:
    """Draw a slab in the brain window, its truth and its prediction: (Y, 3 X) grey, 0 to 255."""
    brain = np.clip(hu.astype(np.float32) / 80.0, 0.0, 1.0)
    picture: Picture = (255 * np.hstack([brain, truth, probability])).astype(np.uint8)
    return picture
