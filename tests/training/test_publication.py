"""From a configuration to a served version with its card, by the command that people type."""

import json

import pytest
import tensorflow as tf
from click.testing import CliRunner

from tests.training.small_runs import network, phantoms
from training.cli import train
from triage.finding import ModelSpec


@pytest.fixture
def config(tmp_path, shards):
    path = tmp_path / "run.toml"
    top = f'folder = "{tmp_path}/run"\nshards = "{shards}"\nsteps_per_round = 2\n'
    parts = [phantoms(part, seed=seed, count=4) for part, seed in (("source", 5), ("validation", 6), ("test", 7))]
    path.write_text(top + network() + "".join(parts))
    return path


def test_one_command_trains_and_publishes(config, tmp_path):
    repository = tmp_path / "models" / "ich_unet"

    result = CliRunner().invoke(train, [str(config), "--publish", str(repository)], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    described = (
        tf.saved_model.load(str(repository / "1"))
        .signatures["spec"](rows=tf.constant([0], tf.int16))["json"]
        .numpy()[0]
    )
    spec = ModelSpec.model_validate(json.loads(described))
    assert (spec.name, spec.rows, spec.context) == ("ich_unet", 48, 1)
    scores = json.loads((repository / "scores.json").read_text())
    assert [(row["split"], row["studies"]) for row in scores] == [("validation", 4), ("test", 4)]
    card = (repository / "README.md").read_text()
    assert spec.training_data_sha256 in card
    assert card.count("phantom: 4 studies") == 2  # scored once as test, once as what chose the lines
    assert "2 steps of 4 slabs of 48 x 48 voxels; they took 0 minutes" in card
    assert "Training saw the real blood of 0 patients" in card


def test_unknown_key_ends_with_one_line(config, tmp_path):
    config.write_text(config.read_text().replace("steps_per_round", "steps_per_rounds"))

    result = CliRunner().invoke(train, [str(config)])

    assert result.exit_code == 1
    assert "Unknown key steps_per_rounds; known are" in result.output
    assert "Traceback" not in result.output


def test_run_without_checkpoint_cannot_be_published(config, tmp_path):
    result = CliRunner().invoke(train, ["publish", str(config), str(tmp_path / "models")])

    assert result.exit_code == 1
    assert "holds no checkpoint. Train first" in result.output
    assert not (tmp_path / "models").exists()


def test_patient_in_training_and_test_is_refused_and_nothing_is_published(config, tmp_path):
    CliRunner().invoke(train, [str(config)], catch_exceptions=False)
    config.write_text(config.read_text().replace("seed = 7", "seed = 5"))

    result = CliRunner().invoke(train, ["publish", str(config), str(tmp_path / "models")])

    assert result.exit_code == 1
    assert "of phantom in source is patient" in result.output
    assert not (tmp_path / "models").exists()
