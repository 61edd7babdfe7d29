"""The training loop on three small phantoms."""

import json
import os
import signal

import numpy as np
import pytest

from training.clusters import strategy_of
from training.loop import Stopped
from training.run import convert_sources, train_network, trainer_of
from training.trainer import Trainer
from triage.errors import ConfigError

HALF_RTOL = 2e-2  # bfloat16 carries 8 bits
SAME_RUN_RTOL = 1e-3  # weights: threads add floats in another order


class Losses:
    """Keeps the loss of each step; may ask to stop after one."""

    def __init__(self, stop_after=None):
        self.losses = {}
        self.stop_after = stop_after

    def step_done(self, report):
        self.losses[report.step] = report.loss
        if report.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def round_done(self, trainer):
        pass


def trainer_for(settings):
    return Trainer(settings, convert_sources(settings, settings.source, lambda _: None), strategy_of("one"))


def weights_of(trainer):
    return np.concatenate([weight.ravel() for weight in trainer.network.get_weights()])


def test_run_writes_checkpoint_board_and_validation(small_run):
    settings = small_run.model_copy(
        update={"validation": (small_run.source[0].model_copy(update={"seed": 6}),), "rounds_per_validation": 2}
    )
    shorter, longer = (
        settings.model_copy(update={"optimiser": settings.optimiser.model_copy(update={"steps": steps})})
        for steps in (2, 6)
    )

    train_network(shorter, resume=False, say=lambda _: None)
    trainer = train_network(longer, resume=True, say=lambda _: None)

    assert int(trainer.step.numpy()) == 6
    assert trainer.checkpoints.latest_checkpoint.endswith("ckpt-6")
    assert list((settings.folder / "board").glob("events.*"))
    validated = [json.loads(line)["step"] for line in (settings.folder / "validation.jsonl").read_text().splitlines()]
    assert validated == [2, 4, 6]  # the last of the first run, every second round of the whole, the last


def test_training_lowers_the_loss(small_run):
    longer = small_run.optimiser.model_copy(update={"steps": 80, "batch": 8, "learning_rate": 2e-2})
    trainer, losses = trainer_for(small_run.model_copy(update={"optimiser": longer, "steps_per_round": 80})), Losses()

    trainer.run(losses)

    values = list(losses.losses.values())
    assert np.mean(values[-20:]) < 0.9 * np.mean(values[:10])  # single batches jump


def test_stopped_run_checkpoints_first_and_resumes_where_it_was(small_run):
    unbroken, seen = trainer_for(small_run), Losses()
    unbroken.run(seen)
    other = small_run.model_copy(update={"folder": small_run.folder.with_name("other")})

    with pytest.raises(Stopped, match="Stopped at step 3"):
        trainer_for(other).run(Losses(stop_after=3))  # in the middle of the second round
    resumed, rest = trainer_for(other), Losses()
    assert resumed.restore() == 3
    resumed.run(rest)

    assert rest.losses[4] == pytest.approx(seen.losses[4], rel=SAME_RUN_RTOL)
    np.testing.assert_allclose(weights_of(resumed), weights_of(unbroken), rtol=SAME_RUN_RTOL, atol=1e-4)


def test_folder_of_another_run_is_not_overwritten(small_run):
    trainer_for(small_run).run(Losses())

    with pytest.raises(ConfigError, match="holds a run already"):
        train_network(small_run, resume=False, say=lambda _: None)


def test_warm_start_takes_weights_and_no_steps(small_run):
    first = trainer_for(small_run)
    first.run(Losses())
    second = trainer_for(small_run.model_copy(update={"folder": small_run.folder.with_name("second")}))

    second.warm_start(small_run.folder / "checkpoints")

    np.testing.assert_array_equal(weights_of(second), weights_of(first))
    assert int(second.step.numpy()) == 0


def test_warm_start_from_nothing_is_an_error(small_run, tmp_path):
    with pytest.raises(ConfigError, match="No weights of this network can be read"):
        trainer_for(small_run).warm_start(tmp_path / "none")


def test_publishing_a_run_without_checkpoint_is_an_error(small_run):
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        trainer_of(small_run, say=lambda _: None)


@pytest.mark.parametrize("changed", [{"precision": "mixed_float16"}, {"precision": "mixed_bfloat16", "xla": True}])
def test_mixed_precision_and_xla_take_the_same_step_about(small_run, changed):
    usual, other = trainer_for(small_run), trainer_for(small_run.model_copy(update=changed))

    losses = [each.take_step(next(each.batches(0, 0)), asked_to_stop=False).loss for each in (usual, other)]

    assert losses[1] == pytest.approx(losses[0], rel=HALF_RTOL)
    assert {str(weight.dtype) for weight in other.network.weights} == {"float32"}
    assert other.reader()(np.zeros((1, 48, 48, 3), np.int16)).dtype == np.float32  # what is served stays as it is
