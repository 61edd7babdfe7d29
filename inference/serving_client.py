"""The worker's client of a TF Serving endpoint: any server that answers `tensorflow.serving.PredictionService`.

It speaks gRPC with messages of its own (`inference.serving_messages`), so that a worker needs no TensorFlow. One study
is read by one version: `spec()` tells which, and each `predict()` is pinned to it.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from inference import wire
from inference.circuit import Circuit, CircuitState
from inference.serving_messages import MODEL_SERVICE, PREDICTION_SERVICE, serving_message
from triage.errors import ConfigError, ServingError, ServingUnavailable
from triage.finding import ModelSpec

SPEC_SIGNATURE = "spec"
SPEC_INPUT, SPEC_OUTPUT = "rows", "json"  # the description once a row, as server-side batching demands rows
ONE_ROW = wire.tensor_parts(wire.DT_INT16, (1,), np.zeros(1, np.int16), values_field=wire.TENSOR_CONTENT)
INPUTS_DIFFER = "input size does not match signature"
LARGEST_REQUEST_BYTES = 16 * 2**20  # above it buffers double past malloc's mmap threshold and every message page-faults
STATE_AVAILABLE = 30  # tensorflow.serving.ModelVersionStatus.AVAILABLE
RETRY_WAIT_S = (0.2, 0.5, 1.0)  # before the second, third and fourth try; each is varied by up to half
PROBABILITY_SLACK = 1e-6  # float32 arithmetic may step over 0 and 1 by this much

# The endpoint is away, loading or overloaded: the same request may succeed later. A version that went away is here too,
# because the study is then read anew with the version that took its place.
TEMPORARY_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.CANCELLED,
    }
)
# Predict changes nothing at the endpoint, so a request that was not answered may be sent again. A deadline is not
# retried: the time that the caller gave is then spent.
RETRIED_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
UNREACHABLE_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
TOO_LARGE = "larger than max"  # gRPC's words for a message above a limit, under RESOURCE_EXHAUSTED: never temporary

CHANNEL_OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),  # every address that a name resolves to
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),  # gRPC's default of 4 MiB is less than the reply to one head
    ("grpc.default_compression_algorithm", 0),  # none: CT noise does not compress, and gzip costs more than the wire
    ("grpc.keepalive_time_ms", 310_000),  # servers close a connection that pings more often than every 300 s
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # a restarted server is found again within seconds, not minutes
)


class ServingClient:
    """A client for one model on any number of endpoints.

    Args:
        endpoint: gRPC target, or several with commas between, which are taken in turns: `models.example:8500`,
            `dns:///models.example:8500` (every address of the name), `unix:/run/models.sock`.
        model_name: name under which the endpoint serves the model.
        timeout_s: for one call, tries and waits included.
        batch_slabs: most slabs in one request; further limited by `LARGEST_REQUEST_BYTES`.
        credentials: TLS; None speaks plain text.

    It may be used by several threads at once.
    """

    def __init__(
        self,
        endpoint: str,
        model_name: str,
        *,
        timeout_s: float = 60.0,
        batch_slabs: int = 32,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._model_name = model_name
        self._timeout_s = timeout_s
        self._batch_slabs = batch_slabs
        self._endpoints = [_Endpoint(Circuit(target), _channel(target, credentials)) for target in _targets(endpoint)]
        self._turns = itertools.count()

    def __enter__(self) -> ServingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way end with an error."""
        for endpoint in self._endpoints:
            endpoint.channel.close()

    @property
    def circuits(self) -> dict[str, CircuitState]:
        """Whether requests go to each endpoint."""
        return {endpoint.circuit.endpoint: endpoint.circuit.state for endpoint in self._endpoints}

    def available(self, timeout_s: float = 2.0) -> bool:
        """Tell whether an endpoint has a version of the model ready; never raises."""
        request = serving_message("GetModelStatusRequest")()
        request.model_spec.name = self._model_name
        try:
            raw = self._call(MODEL_SERVICE, "GetModelStatus", request.SerializeToString(), timeout_s)
            reply = _reply("GetModelStatusResponse", raw)
        except ServingError:
            return False
        return any(status.state == STATE_AVAILABLE for status in reply.model_version_status)

    def spec(self) -> tuple[ModelSpec, int]:
        """Ask the model for its description; gives it with the version that answered.

        Raises:
            ServingUnavailable: no endpoint can be reached, or none has the model yet.
            ServingError: the model has no signature `spec`, or its description is not ours.
        """
        try:
            reply = self._ask_spec({SPEC_INPUT: ONE_ROW})
        except ServingError as error:
            if INPUTS_DIFFER not in str(error):
                raise
            reply = self._ask_spec({})  # a model that describes itself without input
        values = reply.outputs[SPEC_OUTPUT].string_val
        if len(values) != 1:
            raise ServingError(f"signature {SPEC_SIGNATURE} gave {len(values)} strings {SPEC_OUTPUT!r}; expected 1")
        try:
            spec = ModelSpec.model_validate_json(values[0])
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
            raise ServingError(
                f"the model's description does not fit: {fields}. Serve a model of this release"
            ) from error
        return spec, int(reply.model_spec.version.value)

    def predict(self, hu: npt.NDArray[np.int16], *, spec: ModelSpec, version: int) -> npt.NDArray[np.float32]:
        """Ask for the probability map of each slab, all from one version.

        Args:
            hu: (N, Y, X, C) int16 HU, slabs with their neighbours as channels.
            spec: what `spec()` gave.
            version: the version that gave it.

        Returns:
            (N, Y, X) float32, 0 to 1.

        Raises:
            ServingUnavailable: the endpoint or this version cannot be had now.
            ServingError: the endpoint refused, or its maps are not finite numbers from 0 to 1 of the right shape.
        """
        maps = [self._predict_batch(batch, spec, version) for batch in self._batches(hu)]
        return np.concatenate(maps) if maps else np.zeros((0, spec.rows, spec.columns), np.float32)

    def _ask_spec(self, inputs: Mapping[str, list[wire.Part]]) -> Any:
        model_spec = self._model_spec(SPEC_SIGNATURE).SerializeToString()
        request = wire.predict_request_bytes(model_spec, inputs)
        raw = self._call(PREDICTION_SERVICE, "Predict", request, self._timeout_s)
        return _reply("PredictResponse", raw)

    def _batches(self, hu: npt.NDArray[np.int16]) -> Iterator[npt.NDArray[np.int16]]:
        slab_bytes = max(1, hu[:1].nbytes)
        size = max(1, min(self._batch_slabs, LARGEST_REQUEST_BYTES // slab_bytes))
        for start in range(0, len(hu), size):
            yield hu[start : start + size]

    def _predict_batch(self, hu: npt.NDArray[np.int16], spec: ModelSpec, version: int) -> npt.NDArray[np.float32]:
        tensor = wire.tensor_parts(
            wire.DT_INT16, hu.shape, hu.astype("<i2", copy=False), values_field=wire.TENSOR_CONTENT
        )
        model_spec = self._model_spec("serving_default", version).SerializeToString()
        request = wire.predict_request_bytes(model_spec, {spec.input_name: tensor}, [spec.output_name])
        raw = self._call(PREDICTION_SERVICE, "Predict", request, self._timeout_s)
        maps = _float_output(raw, spec.output_name)
        return _checked_maps(maps, (len(hu), spec.rows, spec.columns))

    def _model_spec(self, signature_name: str, version: int | None = None) -> Any:
        model_spec = serving_message("ModelSpec")(name=self._model_name, signature_name=signature_name)
        if version is not None:
            model_spec.version.value = version
        return model_spec

    def _call(self, service: str, method: str, request: bytes, timeout_s: float) -> bytes:
        """Call one endpoint after the other until one answers, tries run out, or the time is spent."""
        deadline = time.monotonic() + timeout_s
        waits = iter(RETRY_WAIT_S)
        while True:
            endpoint = self._next_endpoint()
            try:
                return endpoint.call(f"/{service}/{method}", request, deadline - time.monotonic())
            except grpc.RpcError as error:
                wait_s = next(waits, None) if _may_retry(error) else None
                if wait_s is None or time.monotonic() + wait_s * 1.5 >= deadline:
                    raise _serving_error(error, self._model_name) from error
                time.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311  spreads callers, guards no secret

    def _next_endpoint(self) -> _Endpoint:
        for _ in self._endpoints:
            endpoint = self._endpoints[next(self._turns) % len(self._endpoints)]
            if endpoint.circuit.admits():
                return endpoint
        raise ServingUnavailable(
            "no endpoint has answered lately; they are tried again in a moment", code="UNAVAILABLE"
        )


@dataclass(frozen=True)
class _Endpoint:
    """A connection, and whether it is used."""

    circuit: Circuit
    channel: grpc.Channel

    def call(self, path: str, request: bytes, timeout_s: float) -> bytes:
        """Call a method once, raw bytes both ways."""
        method: Any = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        try:
            reply: bytes = method(request, timeout=max(timeout_s, 0.001))
        except grpc.RpcError as error:
            if error.code() in UNREACHABLE_CODES:
                self.circuit.failed()
            else:
                self.circuit.answered()
            raise
        self.circuit.answered()
        return reply


def tls_credentials(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Give credentials for TLS, and with certificate and key for mutual TLS.

    Args:
        authority: PEM of who signed the endpoint's certificate; None: the authorities known to gRPC.
        certificate: PEM of our own certificate.
        key: PEM of our own key.

    Raises:
        ConfigError: a file cannot be read, or one of certificate and key is missing.
    """
    if (certificate is None) != (key is None):
        raise ConfigError("Mutual TLS needs a certificate and its key; only one of the two is given.")
    try:
        authority_pem, key_pem, certificate_pem = (
            path.read_bytes() if path is not None else None for path in (authority, key, certificate)
        )
    except OSError as error:
        raise ConfigError(f"A TLS file cannot be read: {error.strerror}: {error.filename}.") from error
    return grpc.ssl_channel_credentials(authority_pem, key_pem, certificate_pem)


def _targets(endpoint: str) -> list[str]:
    """Split `endpoint` at its commas; gRPC's own lists of addresses (`ipv4:a:1,b:2`) stay one target."""
    if endpoint.startswith(("ipv4:", "ipv6:")):
        return [endpoint]
    targets = [target.strip() for target in endpoint.split(",") if target.strip()]
    if not targets:
        raise ConfigError("No endpoint is given; expected at least one host:port.")
    return targets


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


def _may_retry(error: grpc.RpcError) -> bool:
    return error.code() in RETRIED_CODES and TOO_LARGE not in (error.details() or "")


def _serving_error(error: grpc.RpcError, model_name: str) -> ServingError:
    code, details = error.code(), error.details() or "no details"
    temporary = code in TEMPORARY_CODES and TOO_LARGE not in details
    kind = ServingUnavailable if temporary else ServingError
    return kind(f"the endpoint answered {code.name} for model {model_name}: {details}", code=code.name)


def _reply(name: str, raw: bytes) -> Any:
    try:
        return serving_message(name).FromString(raw)
    except DecodeError as error:
        raise ServingError(f"the endpoint's reply is no {name}; expected one of TF Serving") from error


def _float_output(raw: bytes, name: str) -> npt.NDArray[np.float32]:
    """Read one float32 output of a PredictResponse, in place where its form is the usual one."""
    tensor = _wire_output(memoryview(raw), name)
    if tensor is not None and tensor.dtype == wire.DT_FLOAT:
        values = np.frombuffer(tensor.content or tensor.float_val, "<f4")
        if values.size == np.prod(tensor.shape, dtype=np.int64):
            return values.reshape(tensor.shape).astype(np.float32, copy=False)
    return _message_output(raw, name)


def _wire_output(raw: memoryview, name: str) -> wire.WireTensor | None:
    try:
        for number, wire_type, value in wire.read_fields(raw):
            if (number, wire_type) == (1, wire.BYTES) and isinstance(value, memoryview):
                entry = wire.read_map_entry(value)
                if entry is not None and entry[0] == name:
                    return wire.read_tensor(entry[1])
    except (wire.MalformedMessage, ValueError):
        return None
    return None


def _message_output(raw: bytes, name: str) -> npt.NDArray[np.float32]:
    """Read one float32 output by the messages: slower, but any valid form."""
    reply = _reply("PredictResponse", raw)
    if name not in reply.outputs:
        raise ServingError(f"the reply has outputs {sorted(reply.outputs)}; expected {name!r}")
    tensor = reply.outputs[name]
    shape = tuple(axis.size for axis in tensor.tensor_shape.dim)
    if tensor.dtype != wire.DT_FLOAT:
        raise ServingError(f"output {name!r} has type number {tensor.dtype}; expected {wire.DT_FLOAT} (float)")
    content = (
        np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
    )
    count = int(np.prod(shape, dtype=np.int64))
    if content.size == 1 and count > 1:
        content = np.repeat(content, count)  # a constant tensor may be sent as one value (tensor.proto)
    if content.size != count:
        raise ServingError(f"output {name!r} has {content.size} values for shape {shape}")
    return content.reshape(shape).astype(np.float32, copy=False)


def _checked_maps(maps: npt.NDArray[np.float32], expected: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if maps.shape != expected:
        raise ServingError(f"the endpoint gave maps of shape {maps.shape}; expected {expected}")
    if maps.size == 0:
        return maps
    lowest, highest = float(maps.min()), float(maps.max())  # NaN comes through both
    if not (lowest >= -PROBABILITY_SLACK and highest <= 1 + PROBABILITY_SLACK):
        raise ServingError(f"the endpoint gave probabilities from {lowest} to {highest}; expected 0 to 1")
    return maps
