"""The same network on another Keras backend: a step gives the same losses and gradients, and TensorFlow exports it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from training.clusters import strategy_of
from training.portable_checkpoint import read_portable, write_portable
from training.run import convert_sources, trainer_of
from training.trainer import Trainer
from triage.errors import ConfigError

ROOT = Path(__file__).parents[2]
LOSS_RTOL = 1e-4  # float32 sums over 10^4 voxels in another order
GRADIENT_RTOL = 2e-3  # of the largest gradient of each weight
FIRST_MOMENT = 0.1  # of AdamW after one step: the gradient times one minus beta
STEP = """
import json, sys
from pathlib import Path
from training.library_switches import choose_backend
choose_backend(sys.argv[3])
import keras
from training.backend_trainer import BackendTrainer
from training.run import convert_sources
from training.settings import RunSettings
settings = RunSettings.model_validate_json(Path(sys.argv[1]).read_text())
trainer = BackendTrainer(settings, convert_sources(settings, settings.source, lambda _: None))
trainer.warm_start(Path(sys.argv[2]))
figures = trainer.take_step(next(trainer.batches(0, 0)), asked_to_stop=False)
trainer.save()
print(json.dumps([keras.backend.backend(), figures.loss, figures.cross_entropy, figures.dice_loss]))
"""


@pytest.fixture
def trainer(small_run):
    return Trainer(small_run, convert_sources(small_run, small_run.source, lambda _: None), strategy_of("one"))


def step_on(backend, *arguments):
    """Take `STEP` in a process of its own: Keras keeps the backend that it was imported with."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", STEP, *map(str, arguments), backend]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_one_step_on_two_backends_gives_the_same_loss_and_gradients(trainer, small_run, tmp_path, other):
    pytest.importorskip(other, reason=f"{other} is not installed; PyTorch is too large for the tests' packages")
    start = write_portable(tmp_path / "start", 1, trainer.network, trainer.optimiser)
    (tmp_path / "run.json").write_text(small_run.model_dump_json())
    figures = trainer.take_step(next(trainer.batches(0, 0)), asked_to_stop=False)

    backend, *losses = step_on(other, tmp_path / "run.json", start)
    exported = trainer_of(small_run, say=lambda _: None)  # what it saved, read by TensorFlow

    assert (backend, exported.steps_done) == (other, 1)
    np.testing.assert_allclose(losses, [figures.loss, figures.cross_entropy, figures.dice_loss], rtol=LOSS_RTOL)
    moments = zip(trainer.optimiser._momentums, exported.optimiser._momentums, strict=True)
    for weight, (expected, found) in zip(trainer.network.trainable_variables, moments, strict=True):
        gradient = expected.numpy() / FIRST_MOMENT
        atol = GRADIENT_RTOL * np.abs(gradient).max()
        assert atol > 0, weight.path
        np.testing.assert_allclose(found.numpy() / FIRST_MOMENT, gradient, rtol=0, atol=atol, err_msg=weight.path)


def test_portable_checkpoint_gives_back_weights_and_optimiser(trainer, tmp_path):
    path = write_portable(tmp_path, 7, trainer.network, trainer.optimiser)
    before = [weight.copy() for weight in trainer.network.get_weights()]
    trainer.network.set_weights([0 * weight for weight in before])

    assert read_portable(path, trainer.network, trainer.optimiser) == 7
    for weight, expected in zip(trainer.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_portable_checkpoint_of_another_network_is_refused(trainer, tmp_path):
    path = write_portable(tmp_path, 1, keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), trainer.optimiser)

    with pytest.raises(ConfigError, match="is not of the network that the settings name"):
        read_portable(path, trainer.network)


def test_only_the_newest_portable_checkpoints_are_kept(trainer, tmp_path):
    for step in (1, 2, 3, 4):
        write_portable(tmp_path, step, trainer.network, trainer.optimiser)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2.npz", "step-3.npz", "step-4.npz"]
