"""A full disk: one clear error, the checkpoints before it stay whole, and nothing that looks like a model."""

import os
import resource
import signal
from contextlib import contextmanager

import pytest
import tensorflow as tf

from tests.networks import small_spec
from training.clusters import strategy_of
from training.export import export_model
from training.loop import Stopped, run_rounds
from training.network import build_network, fold_normalisation
from training.observers import RunObserver
from training.portable_checkpoint import newest_portable, write_portable
from training.run import convert_sources, train_network
from training.trainer import Trainer
from triage.errors import ConfigError

SPEC = small_spec(48, pixel_mm=5.0)


@contextmanager
def full_disk(left=2000):
    """Let no file grow beyond some bytes: the kernel refuses what is more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def trainer(small_run):
    return Trainer(small_run, convert_sources(small_run, small_run.source, lambda _: None), strategy_of("one"))


def test_full_disk_at_a_checkpoint_is_named_and_the_one_before_stays(trainer, small_run):
    trainer.step.assign(2)
    trainer.save()
    trainer.step.assign(4)

    with (
        full_disk(),
        pytest.raises(ConfigError, match=r"checkpoint of step 4 cannot be written .* whole one is ckpt-2"),
    ):
        trainer.save()

    assert Trainer(small_run, trainer.converted, strategy_of("one")).restore() == 2


def test_full_disk_at_a_portable_checkpoint_leaves_the_one_before(trainer, tmp_path):
    write_portable(tmp_path, 1, trainer.network, trainer.optimiser)

    with full_disk(), pytest.raises(ConfigError, match="checkpoint of step 2 cannot be written"):
        write_portable(tmp_path, 2, trainer.network, trainer.optimiser)

    assert newest_portable(tmp_path)[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.npz"]


def test_full_disk_at_the_export_leaves_nothing_that_looks_like_a_version(small_run, tmp_path):
    served = fold_normalisation(build_network(small_run.network, (48, 48)), small_run.network, (48, 48))

    with full_disk(), pytest.raises((tf.errors.OpError, OSError)):
        export_model(served, SPEC, tmp_path, 1)

    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


class StopsAfter(RunObserver):
    """Asks a run to stop, as SIGTERM does, after a step."""

    def __init__(self, step):
        self.step = step

    def step_done(self, report):
        if report.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_loss_that_is_no_number_ends_the_run(trainer):
    kernel = trainer.network.trainable_variables[0]
    kernel.assign(kernel * float("nan"))

    with pytest.raises(ConfigError, match="The loss of step 1 is nan"):
        run_rounds(trainer, RunObserver())


def test_stopped_run_keeps_the_steps_that_it_took(small_run):
    with pytest.raises(Stopped):
        train_network(small_run, resume=False, say=lambda _: None, watched_by=(StopsAfter(3),))

    assert len((small_run.folder / "steps.jsonl").read_text().splitlines()) == 3
