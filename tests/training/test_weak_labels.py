"""Labels of different strength: what each lets the network learn."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from tests.training import data_sets
from training.clusters import strategy_of
from training.losses import cross_entropy, dice_parts
from training.pipeline import training_batches
from training.settings import RunSettings
from training.shards import convert, patients_in, read_scans, weakly_labelled
from training.trainer import Trainer
from training.weak_labels import (
    SLAB_BLEEDS,
    STUDY_BLEEDS,
    VOXELS_KNOWN,
    known_logits,
    pooled_logits,
    slab_loss,
    study_loss,
    truth_codes,
)

LOG2 = float(np.log(2))


def slabs(*peaks: float) -> np.ndarray:
    """(N, 30, 30) logits of -5 with two voxels of each slab at its peak: 0.2 % of 900 are two."""
    logits = np.full((len(peaks), 30, 30), -5.0, np.float32)
    logits[:, 4, 4:6] = np.array(peaks)[:, None]
    return logits


@pytest.mark.parametrize(("pooling", "expected"), [("top", 3.0), ("max", 3.0), ("mean", (2 * 3.0 - 898 * 5.0) / 900)])
def test_slab_is_as_suspicious_as_its_pooling_says(pooling, expected):
    assert float(pooled_logits(slabs(3.0), pooling)[0]) == pytest.approx(expected, abs=1e-4)


def test_slab_said_to_bleed_asks_for_suspicion():
    truth = np.array([SLAB_BLEEDS, VOXELS_KNOWN, STUDY_BLEEDS])

    assert float(slab_loss(slabs(0.0, -9.0, -9.0), truth)) == pytest.approx(LOG2)  # only the first slab counts
    assert float(slab_loss(slabs(8.0, -9.0, -9.0), truth)) < 0.001
    assert float(slab_loss(slabs(-3.0, -3.0), np.array([VOXELS_KNOWN] * 2))) == 0.0


def test_one_slab_of_a_bleeding_study_is_enough():
    truth = np.array([STUDY_BLEEDS, STUDY_BLEEDS, VOXELS_KNOWN])

    silent = float(study_loss(slabs(-4.0, -4.0, 9.0), truth))
    one = float(study_loss(slabs(-4.0, 2.0, 9.0), truth))

    assert silent == pytest.approx(0.9 * np.log1p(np.exp(4.0)) + 0.1 * np.log1p(np.exp(-4.0)), rel=1e-5)
    assert one < silent / 5
    assert float(study_loss(slabs(1.0), np.array([VOXELS_KNOWN]))) == 0.0


def test_voxels_that_nobody_drew_add_no_loss():
    logits, blood = slabs(6.0, 1.0), np.zeros((2, 30, 30), np.float32)
    known = known_logits(logits, np.array([SLAB_BLEEDS, VOXELS_KNOWN]))

    assert float(ops.sum(dice_parts(known[:1], blood[:1]))) == pytest.approx(0.0, abs=1e-6)
    assert float(cross_entropy(known[:1], blood[:1])) == pytest.approx(0.0, abs=1e-6)
    assert float(cross_entropy(known[1:], blood[1:])) == pytest.approx(float(cross_entropy(logits[1:], blood[1:])))


@pytest.fixture
def mixed_run(tmp_path) -> RunSettings:
    """A run on sources of all three strengths, with weights."""
    rsna = data_sets.write_rsna(tmp_path / "rsna")
    cq500 = data_sets.write_cq500(tmp_path / "cq500")
    instance = data_sets.write_instance(tmp_path / "instance")
    folds = (0, 1, 2, 3, 4)
    return RunSettings.model_validate(
        {
            "folder": tmp_path / "run",
            "grid": {"rows": 48, "columns": 48, "spacing_mm": (5.0, 5.0, 5.0)},
            "network": {"widths": (4, 8)},
            "optimiser": {"steps": 2, "batch": 8, "crop": (48, 48), "warmup_steps": 1},
            "source": [
                {"kind": "instance", "folder": instance, "folds": folds, "bleed_weight": 2.0},
                {"kind": "rsna", "folder": rsna, "folds": folds},
                {"kind": "cq500", "folder": cq500, "folds": folds},
            ],
        }
    )


def test_strengths_survive_conversion_and_train_together(mixed_run):
    converted = [(source, convert(source, mixed_run.grid, mixed_run.shards_folder)) for source in mixed_run.source]
    codes = {
        source.kind: {(scan.bleed, tuple(sorted(set(truth_codes(scan).tolist())))) for scan in read_scans(folder)}
        for source, folder in converted
    }

    assert codes == {
        "instance": {(True, (VOXELS_KNOWN,))},
        "rsna": {(False, (VOXELS_KNOWN,)), (True, (VOXELS_KNOWN, SLAB_BLEEDS))},
        "cq500": {(False, (VOXELS_KNOWN,)), (True, (STUDY_BLEEDS,))},
    }
    assert [weakly_labelled(folder) for _, folder in converted] == [False, True, True]
    assert ("rsna", "ID_0a1b2c3d") in patients_in(converted[1][1])

    trainer = Trainer(mixed_run, converted, strategy_of("one"))
    batch = next(iter(training_batches(mixed_run, converted, 0)))
    hu, _, truth = batch
    before = trainer.network.trainable_variables[0].numpy()
    losses = [trainer.take_step(batch, asked_to_stop=False).loss for _ in range(3)]

    assert (hu.shape, truth.shape) == ((8, 48, 48, 3), (8,))
    assert set(truth.numpy()) <= {VOXELS_KNOWN, SLAB_BLEEDS, STUDY_BLEEDS}
    assert np.isfinite(losses).all()
    assert not np.array_equal(before, trainer.network.trainable_variables[0].numpy())
