"""Writes `serving.binpb`: the messages of the endpoint, taken from the pinned packages.

Run after a change of the pinned tensorflow-serving-api: `python -m inference.extract_messages`. TensorFlow is imported
here and only here, so that the processes which merely speak to an endpoint start without it.
"""

from __future__ import annotations

import importlib
from typing import Any

from google.protobuf import descriptor_pb2, text_format

from inference.serving_messages import DESCRIPTORS_PATH

MODULES = (
    "tensorflow_serving.apis.classification_pb2",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.get_model_status_pb2",
    "tensorflow_serving.apis.inference_pb2",
    "tensorflow_serving.apis.model_management_pb2",
    "tensorflow_serving.apis.predict_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow_serving.apis.regression_pb2",
    "tensorflow_serving.config.model_server_config_pb2",
)

# The configuration files of the server that its Python package leaves out. They are only ever read in text form,
# where names and types count and field numbers do not travel.
# Source: tensorflow_serving/servables/tensorflow/session_bundle_config.proto, config/monitoring_config.proto,
# config/ssl_config.proto.
CONFIGURATION_FILES = """
name: "ich_triage/server_configuration.proto"
package: "tensorflow.serving"
syntax: "proto3"
dependency: "google/protobuf/wrappers.proto"
message_type {
  name: "BatchingParameters"
  field { name: "max_batch_size" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "batch_timeout_micros" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "max_enqueued_batches" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "num_batch_threads" number: 4 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "thread_pool_name" number: 5 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.StringValue" }
  field { name: "allowed_batch_sizes" number: 6 label: LABEL_REPEATED type: TYPE_INT64 }
  field { name: "pad_variable_length_inputs" number: 7 label: LABEL_OPTIONAL type: TYPE_BOOL }
  field { name: "enable_large_batch_splitting" number: 8 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.BoolValue" }
  field { name: "max_execution_batch_size" number: 9 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
}
message_type {
  name: "PrometheusConfig"
  field { name: "enable" number: 1 label: LABEL_OPTIONAL type: TYPE_BOOL }
  field { name: "path" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
}
message_type {
  name: "MonitoringConfig"
  field { name: "prometheus_config" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".tensorflow.serving.PrometheusConfig" }
}
message_type {
  name: "SSLConfig"
  field { name: "server_key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "server_cert" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "custom_ca" number: 3 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "client_verify" number: 4 label: LABEL_OPTIONAL type: TYPE_BOOL }
}
"""  # noqa: E501


def descriptor_set() -> bytes:
    """Give a serialised FileDescriptorSet of `MODULES` and all they depend on, dependencies first."""
    files: dict[str, Any] = {}
    for module in MODULES:
        _collect(importlib.import_module(module).DESCRIPTOR, files)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    text_format.Parse(CONFIGURATION_FILES, found.file.add())
    return found.SerializeToString(deterministic=True)


def _collect(file: Any, files: dict[str, Any]) -> None:
    for dependency in file.dependencies:
        _collect(dependency, files)
    files.setdefault(file.name, file)


if __name__ == "__main__":
    DESCRIPTORS_PATH.write_bytes(descriptor_set())
