"""Models and servers shared by the tests of the endpoint: TensorFlow takes seconds to import, so each is made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

SPEC = {
    "name": "threshold",
    "rows": 8,
    "columns": 6,
    "spacing_mm": [5.0, 1.25, 1.25],
    "context": 1,
    "operating_point": {
        "study_probability": 0.5,
        "voxel_probability": 0.5,
        "smallest_component_ml": 0.1,
        "rule": "threshold at 50 HU",
    },
    "calibration": {"score_ml": 1.0, "slope": 1.0, "intercept": 0.0},
    "training_data_sha256": "0" * 64,
    "code_version": "0.1.0",
}


def write_threshold_model(folder: Path, *, threshold_hu: float = 50.0, rows: bool = True) -> None:
    """Write a SavedModel that takes a voxel of the middle slab for blood above `threshold_hu`, a variable of it.

    `rows`: its description takes rows, as server-side batching demands.
    """
    import tensorflow as tf

    class Threshold(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold_hu = tf.Variable(threshold_hu)

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 6, 3], tf.int16, name="hu")], autograph=False)
        def probability(self, hu):
            return {"probability": tf.cast(tf.cast(hu[..., 1], tf.float32) > self.threshold_hu, tf.float32)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int16, name="rows")], autograph=False)
        def spec(self, rows):
            return {"json": tf.fill(tf.shape(rows), json.dumps(SPEC))}

        @tf.function(input_signature=[], autograph=False)
        def spec_without_rows(self):
            return {"json": tf.constant(json.dumps(SPEC))}

    model = Threshold()
    spec = model.spec if rows else model.spec_without_rows
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.probability, "spec": spec})


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version folder of the threshold model, to be copied into models' folders."""
    folder = tmp_path_factory.mktemp("threshold") / "version"
    write_threshold_model(folder)
    return folder


@pytest.fixture(scope="session")
def ports(threshold_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A server on loopback with the threshold model as `threshold/1`; gives its ports."""
    from inference.model_server.server import ModelServer
    from triage.settings import ServerSettings

    models = tmp_path_factory.mktemp("models")
    (models / "threshold").mkdir()
    (models / "threshold" / "1").symlink_to(threshold_model)
    server = ModelServer(ServerSettings(models_folder=models, port=0, rest_port=0, poll_interval_s=0.1))
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def served(ports) -> str:
    """The gRPC endpoint of the server of `ports`."""
    return f"127.0.0.1:{ports.grpc}"
