"""Runs are tracked in an embedded database; a server that is away costs a warning and nothing else."""

import socket

import pytest

from training.run import train_network
from training.settings import TrackingSettings
from training.tracking import client_of, code_version, embedded_uri, read_tracked_run
from triage.errors import ConfigError


@pytest.mark.slow
def test_run_is_tracked_with_settings_code_data_curves_scores_and_model(validated_run):
    client = client_of(embedded_uri(validated_run.folder.parent))
    [experiment] = [found for found in client.search_experiments() if found.name == "ich-triage"]
    [run] = client.search_runs([experiment.experiment_id])

    assert run.info.status == "FINISHED"
    assert run.data.params["optimiser.batch"] == "4"
    assert run.data.params["source.0.kind"] == "phantom"
    assert run.data.tags["code_version"].startswith(code_version().release)
    assert len(run.data.tags["training_data_sha256"]) == 64
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [10, 20]
    assert "validation/phantom/slice_dice" in run.data.metrics
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"run.json", "steps.jsonl", "studies.json", "checkpoint"} <= kept


@pytest.mark.slow
def test_tracked_run_is_compared_by_its_name(validated_run):
    record = read_tracked_run(embedded_uri(validated_run.folder.parent), validated_run.folder.name)

    assert (record.name, len(record.steps), len(record.studies)) == (validated_run.folder.name, 20, 3)
    with pytest.raises(ConfigError, match="has no run nobody"):
        read_tracked_run(embedded_uri(validated_run.folder.parent), "nobody")


def test_unreachable_server_costs_one_warning(small_run):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = TrackingSettings(uri=f"http://127.0.0.1:{port}")
    told = []

    trainer = train_network(small_run.model_copy(update={"tracking": away}), resume=False, say=told.append)

    assert trainer.steps_done == 4
    assert len([line for line in told if line.startswith(f"warning: http://127.0.0.1:{port} fails")]) == 1
