"""A version's warm-up requests run before it is available, and one that fails keeps it out."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest

tf = pytest.importorskip("tensorflow")

from inference.model_server.servable import SessionThreads, load_servable  # noqa: E402
from inference.model_server.server import ModelServer  # noqa: E402
from inference.model_server.statuses import StatusError  # noqa: E402
from inference.model_server.warm_up import REQUESTS_FILE, warm_up  # noqa: E402
from inference.serving_messages import serving_message  # noqa: E402
from triage.errors import ServingError  # noqa: E402
from triage.settings import ServerSettings  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path, threshold_model: Path) -> Path:
    shutil.copytree(threshold_model, tmp_path / "threshold" / "1")
    return tmp_path / "threshold" / "1"


def write(folder: Path, *records: bytes) -> None:
    (folder / REQUESTS_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / REQUESTS_FILE)) as writer:
        for record in records:
            writer.write(record)


def predict_log(*, slabs: int = 2, signature: str = "", input_name: str = "hu") -> bytes:
    log = serving_message("PredictionLog")()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    tensor = request.inputs[input_name]
    tensor.dtype = 5  # int16
    for size in (slabs, 8, 6, 3):
        tensor.tensor_shape.dim.add(size=size)
    return log.SerializeToString()


@pytest.fixture
def servable(folder):
    servable = load_servable(folder, SessionThreads())
    yield servable
    servable.close()


def test_every_record_is_run(servable, folder):
    write(folder, predict_log(slabs=1), predict_log(slabs=32))

    assert warm_up(servable, folder) == 2


def test_no_file_is_no_error(servable, folder):
    assert warm_up(servable, folder) == 0


@pytest.mark.parametrize(
    ("record", "code", "text"),
    [
        (predict_log(signature="none"), grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "none" not found.'),
        (predict_log(input_name="image"), grpc.StatusCode.INVALID_ARGUMENT, "not found in request"),
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "Failed to parse warmup record"),
        (b"", grpc.StatusCode.UNIMPLEMENTED, "Unsupported log_type for warmup: 0"),
    ],
)
def test_a_record_that_fails_fails_the_load(servable, folder, record, code, text):
    write(folder, predict_log(), record)

    with pytest.raises(StatusError) as error:
        warm_up(servable, folder)

    assert error.value.code is code
    assert text in error.value.message


def test_a_file_that_is_no_tfrecord_is_data_loss(servable, folder):
    write(folder)
    (folder / REQUESTS_FILE).write_bytes(b"no record at all, but long enough to be one")

    with pytest.raises(StatusError, match="Please verify your warmup data is in TFRecord"):
        warm_up(servable, folder)


def test_more_than_a_thousand_records_are_refused(servable, folder):
    write(folder, *[predict_log(slabs=0)] * 1001)

    with pytest.raises(StatusError, match=r"Number of warmup records exceeds the maximum \(1000\)"):
        warm_up(servable, folder)


def test_a_version_without_variables_is_kept_out_by_its_warm_up(folder):
    write(folder, predict_log())
    shutil.rmtree(folder / "variables")

    with pytest.raises(ServingError, match="FAILED_PRECONDITION"):
        ModelServer(ServerSettings(models_folder=folder.parent.parent, port=0, rest_port=0)).start()
