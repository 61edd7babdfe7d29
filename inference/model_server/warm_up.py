"""Runs the warm-up requests that lie in a version's folder, before the version is available.

They are also its test: a record that fails fails the load, so that a broken version never takes over.

Reference:
    tensorflow_serving/servables/tensorflow/saved_model_warmup.cc, saved_model_warmup_util.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
import tensorflow as tf
from google.protobuf.message import DecodeError

from inference.model_server import examples
from inference.model_server.metrics import Metrics
from inference.model_server.predict import predict
from inference.model_server.predict_request import request_of_message
from inference.model_server.servable import Servable
from inference.model_server.statuses import StatusError, invalid_argument
from inference.serving_messages import serving_message

log = structlog.get_logger()

REQUESTS_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000


@dataclass(frozen=True)
class OneServable:
    """Hands out one servable, whatever is asked for: what a version is warmed up with before the manager has it."""

    one: Servable

    @contextmanager
    def servable(self, _name: str, _version: int | None, _label: str | None = None) -> Iterator[tuple[Servable, int]]:
        """Hold the servable for a request."""
        yield self.one, 0


def warm_up(servable: Servable, folder: Path) -> int:
    """Run a version's warm-up requests; gives how many there were.

    Raises:
        StatusError: the file is no TFRecord, has too many records, or one of them fails.
    """
    file = folder / REQUESTS_FILE
    if not file.is_file():
        return 0
    count = 0
    for record in _records(file):
        _run(record, OneServable(servable), file)
        count += 1
        if count > MOST_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}")
    return count


def _records(file: Path) -> Iterator[bytes]:
    try:
        for record in tf.data.TFRecordDataset(str(file)):
            yield record.numpy()
    except tf.errors.DataLossError as error:
        message = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise StatusError(grpc.StatusCode.DATA_LOSS, message) from error


def _run(record: bytes, servables: OneServable, file: Path) -> None:
    try:
        recorded = serving_message("PredictionLog").FromString(record)
    except DecodeError as error:
        raise invalid_argument(f"Failed to parse warmup record: {record!r} from {file}") from error
    kind = recorded.WhichOneof("log_type")
    metrics = Metrics()  # not the server's: nobody asked for these
    if kind == "predict_log":
        request = request_of_message(_named(recorded.predict_log.request))
        predict(request, servables, metrics)
    elif kind == "classify_log":
        examples.classify(_named(recorded.classify_log.request), servables, metrics)
    elif kind == "regress_log":
        examples.regress(_named(recorded.regress_log.request), servables, metrics)
    elif kind == "multi_inference_log":
        examples.multi_inference(recorded.multi_inference_log.request, servables, metrics)
    else:
        message = f"Unsupported log_type for warmup: {_number(recorded, kind)}"
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, message)


def _named(request: Any) -> Any:
    """Fill in a name where the record has none: it is this version's in any case."""
    if not request.model_spec.name:
        request.model_spec.name = "warm_up"
    return request


def _number(recorded: Any, kind: str | None) -> int:
    return 0 if kind is None else int(recorded.DESCRIPTOR.fields_by_name[kind].number)
