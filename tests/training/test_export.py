"""Export: what is loaded back says the same as what was trained."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tests.networks import small_spec
from training.export import WARM_UP_FILE, export_model, next_version
from training.network import build_network, fold_normalisation
from training.settings import NetworkSettings
from triage.errors import ConfigError
from triage.finding import ModelSpec

SMALL = NetworkSettings(widths=(4, 8))
ROUND_TRIP_ATOL = 1e-5  # probability: the graph fuses what Keras adds up step by step

ROOT = Path(__file__).parents[2]
# the C session checks no shape, as TF Serving's does not; a kernel that ends its process shall not end the tests'
RUN_SHAPES = """
import json, sys
import numpy as np
import tensorflow as tf
from inference.model_server.session_run import DirectRun
told = []
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    signature = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1]).signature_def["serving_default"]
    run = DirectRun(session)
    for shape in json.loads(sys.argv[2]):
        feeds = {signature.inputs["hu"].name: np.zeros(shape, np.int16)}
        try:
            told.append(str(list(run(feeds, [signature.outputs["probability"].name], 0)[0].shape)))
        except tf.errors.InvalidArgumentError as error:
            told.append(error.message.splitlines()[0].partition("_0 ")[2])
print(json.dumps(told))
"""

SPEC = small_spec(16, pixel_mm=1.25)


@pytest.fixture
def trained():
    return build_network(SMALL, (16, 16))


def exported(trained, repository, version=1):
    return export_model(fold_normalisation(trained, SMALL, (16, 16)), SPEC, repository, version)


def test_saved_model_gives_the_probability_that_the_trained_network_gave(trained, tmp_path):
    folder = exported(trained, tmp_path)
    hu = np.random.default_rng(1).integers(-100, 200, (3, 16, 16, 3)).astype(np.int16)

    served = tf.saved_model.load(str(folder)).signatures["serving_default"](hu=tf.constant(hu))["probability"]

    straight = np.asarray(trained(hu.astype(np.float32), training=False))
    mirrored = np.asarray(trained(hu[:, :, ::-1].astype(np.float32), training=False))[:, :, ::-1]
    expected = 1 / (1 + np.exp(-(straight + mirrored) / 2))
    assert served.dtype == tf.float32
    np.testing.assert_allclose(served.numpy(), expected, atol=ROUND_TRIP_ATOL)


def test_a_session_as_tf_serving_runs_it_finds_every_variable(trained, tmp_path):
    folder = exported(trained, tmp_path)
    hu = np.random.default_rng(1).integers(-100, 200, (3, 16, 16, 3)).astype(np.int16)
    again = tf.saved_model.load(str(folder)).signatures["serving_default"](hu=tf.constant(hu))["probability"]

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
        signature = loaded.signature_def["serving_default"]
        served = session.run(signature.outputs["probability"].name, {signature.inputs["hu"].name: hu})

    np.testing.assert_allclose(served, again.numpy(), atol=ROUND_TRIP_ATOL)


def test_tensors_of_other_axes_are_refused_before_a_kernel_that_would_end_the_server(trained, tmp_path):
    folder = exported(trained, tmp_path)
    command = [sys.executable, "-c", RUN_SHAPES, str(folder), json.dumps([[1, 16, 16, 3], [3], [16, 16, 3]])]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [
        "[1, 16, 16]",
        "[3] is not compatible with expected shape [?,?,?,3].",
        "[16,16,3] is not compatible with expected shape [?,?,?,3].",
    ]


def test_saved_model_describes_itself(trained, tmp_path):
    folder = exported(trained, tmp_path)

    described = tf.saved_model.load(str(folder)).signatures["spec"](rows=tf.zeros([2], tf.int16))["json"]

    assert [ModelSpec.model_validate(json.loads(each)) for each in described.numpy()] == [SPEC, SPEC]


def test_no_kernel_is_compiled_by_xla(trained, tmp_path):
    graph = tf.saved_model.load(str(exported(trained, tmp_path))).signatures["serving_default"].graph

    functions = graph.as_graph_def().library.function
    compiled = [function.signature.name for function in functions if function.attr["_XlaMustCompile"].b]
    assert compiled == []


def test_warm_up_asks_for_the_spec_and_for_each_usual_size(trained, tmp_path):
    records = tf.data.TFRecordDataset(str(exported(trained, tmp_path) / WARM_UP_FILE))
    requests = [PredictionLog.FromString(record.numpy()).predict_log.request for record in records]

    assert [request.model_spec.signature_name for request in requests] == ["spec"] + ["serving_default"] * 3
    shapes = [tf.make_ndarray(request.inputs["hu"]).shape for request in requests[1:]]
    assert shapes == [(1, 16, 16, 3), (8, 16, 16, 3), (32, 16, 16, 3)]


def test_version_is_never_written_twice_and_leaves_nothing_beside(trained, tmp_path):
    exported(trained, tmp_path)

    with pytest.raises(ConfigError, match="a served version is never changed"):
        exported(trained, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert next_version(tmp_path) == 2
