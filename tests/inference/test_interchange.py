"""Three clients that share nothing with ours run the same calls: tensorflow-serving-api, plain grpcio, and curl.

Plain grpcio has no stubs: it calls by path, with classes made from the public .proto files, whose compiled form
tensorflow-serving-api carries.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from functools import cache

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

HU = np.zeros((2, 1, 2, 3), np.int16)
HU[1, 0, 1, 1] = 60  # above the model's 50 HU
EXPECTED = [[[0.0, 0.0]], [[0.0, 1.0]]]
AVAILABLE = 30


class ServingApi:
    """tensorflow-serving-api's stubs."""

    def __init__(self, ports) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{ports.grpc}")

    def predict(self, name: str) -> list:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.inputs["hu"].CopyFrom(tf.make_tensor_proto(HU))
        reply = prediction_service_pb2_grpc.PredictionServiceStub(self.channel).Predict(request, timeout=60)
        return tf.make_ndarray(reply.outputs["probability"]).tolist()

    def available(self, name: str) -> bool:
        from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        reply = model_service_pb2_grpc.ModelServiceStub(self.channel).GetModelStatus(request, timeout=60)
        return reply.model_version_status[0].state == AVAILABLE

    def inputs(self, name: str) -> list[str]:
        from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        reply = prediction_service_pb2_grpc.PredictionServiceStub(self.channel).GetModelMetadata(request, timeout=60)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        return list(signatures.signature_def["serving_default"].inputs)

    def error(self, name: str) -> str:
        with pytest.raises(grpc.RpcError) as error:
            self.predict(name)
        return error.value.details()


PUBLIC_FILES = ("predict", "get_model_status", "get_model_metadata")


@cache
def public_pool() -> DescriptorPool:
    """Give the public .proto files, from the bytes that protoc made of them."""
    pool = DescriptorPool()

    def add(file) -> None:
        for dependency in file.dependencies:
            add(dependency)
        pool.AddSerializedFile(file.serialized_pb)

    for name in PUBLIC_FILES:
        add(importlib.import_module(f"tensorflow_serving.apis.{name}_pb2").DESCRIPTOR)
    return pool


def public_message(name: str):
    return GetMessageClass(public_pool().FindMessageTypeByName(f"tensorflow.serving.{name}"))


class PlainGrpc(ServingApi):
    """grpcio with the public messages and no stubs."""

    def _call(self, service: str, method: str, request, reply: str):
        path = f"/tensorflow.serving.{service}/{method}"
        raw = self.channel.unary_unary(path)(request.SerializeToString(), timeout=60)
        return public_message(reply).FromString(raw)

    def predict(self, name: str) -> list:
        request = public_message("PredictRequest")()
        request.model_spec.name = name
        tensor = request.inputs["hu"]
        tensor.dtype = 5  # int16
        for size in HU.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.int_val.extend(HU.reshape(-1).tolist())
        found = self._call("PredictionService", "Predict", request, "PredictResponse").outputs["probability"]
        return np.reshape(list(found.float_val), [axis.size for axis in found.tensor_shape.dim]).tolist()

    def available(self, name: str) -> bool:
        request = public_message("GetModelStatusRequest")()
        request.model_spec.name = name
        reply = self._call("ModelService", "GetModelStatus", request, "GetModelStatusResponse")
        return reply.model_version_status[0].state == AVAILABLE

    def inputs(self, name: str) -> list[str]:
        request = public_message("GetModelMetadataRequest")(metadata_field=["signature_def"])
        request.model_spec.name = name
        reply = self._call("PredictionService", "GetModelMetadata", request, "GetModelMetadataResponse")
        signatures = public_message("SignatureDefMap")()
        reply.metadata["signature_def"].Unpack(signatures)
        return list(signatures.signature_def["serving_default"].inputs)


class Curl(ServingApi):
    """Debian's curl on the REST port."""

    def __init__(self, ports) -> None:
        if shutil.which("curl") is None:
            pytest.skip("needs Debian's curl")
        self.models = f"http://127.0.0.1:{ports.rest}/v1/models"

    def _json(self, *arguments: str) -> dict:
        command = ["curl", "--silent", "--max-time", "60", *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def predict(self, name: str) -> list:
        body = json.dumps({"instances": HU.tolist()})
        return self._json("--data", body, f"{self.models}/{name}:predict")["predictions"]

    def available(self, name: str) -> bool:
        return self._json(f"{self.models}/{name}")["model_version_status"][0]["state"] == "AVAILABLE"

    def inputs(self, name: str) -> list[str]:
        signatures = self._json(f"{self.models}/{name}/metadata")["metadata"]["signature_def"]["signature_def"]
        return list(signatures["serving_default"]["inputs"])

    def error(self, name: str) -> str:
        return self._json("--data", '{"instances": [0]}', f"{self.models}/{name}:predict")["error"]


@pytest.fixture(params=[ServingApi, PlainGrpc, Curl])
def client(request, ports):
    return request.param(ports)


def test_every_client_gets_the_same_maps(client):
    assert client.predict("threshold") == EXPECTED


def test_every_client_sees_the_model_available(client):
    assert client.available("threshold")


def test_every_client_sees_the_inputs(client):
    assert client.inputs("threshold") == ["hu"]


def test_every_client_is_told_the_same_of_an_unknown_model(client):
    assert client.error("none") == "Servable not found for request: Latest(none)"
