"""The worker's client of a TF Serving endpoint: any server that answers `tensorflow.serving.PredictionService`.

It speaks gRPC with messages of its own (`inference.serving_messages`), so that a worker needs no TensorFlow. One study
is read by one version: `spec()` tells which, and each `predict()` is pinned to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from inference import wire
from inference.channel import open_channel, targets_of
from inference.circuit import CircuitState
from inference.endpoints import Endpoint, Endpoints
from inference.predict_reply import probability_maps, read_message
from inference.serving_messages import MODEL_SERVICE, PREDICTION_SERVICE, serving_message
from triage.errors import ServingError
from triage.finding import ModelSpec

SPEC_SIGNATURE = "spec"
SPEC_INPUT, SPEC_OUTPUT = "rows", "json"  # the description once a row, as server-side batching demands rows
ONE_ROW = wire.tensor_parts(wire.DT_INT16, (1,), np.zeros(1, np.int16), values_field=wire.TENSOR_CONTENT)
INPUTS_DIFFER = "input size does not match signature"
LARGEST_REQUEST_BYTES = 16 * 2**20  # above it buffers double past malloc's mmap threshold and every message page-faults
STATE_AVAILABLE = 30  # tensorflow.serving.ModelVersionStatus.AVAILABLE
PREDICT = f"/{PREDICTION_SERVICE}/Predict"
MODEL_STATUS = f"/{MODEL_SERVICE}/GetModelStatus"


class ServingClient:
    """A client for one model on any number of endpoints.

    Args:
        endpoint: gRPC target, or several with commas between, which are taken in turns: `models.example:8500`,
            `dns:///models.example:8500` (every address of the name), `unix:/run/models.sock`.
        model_name: name under which the endpoint serves the model.
        timeout_s: for one call, tries and waits included.
        batch_slabs: most slabs in one request; further limited by `LARGEST_REQUEST_BYTES`.
        credentials: TLS; None speaks plain text.
        server_name: name that the endpoint's certificate must have; empty: that in the target.

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
        server_name: str = "",
    ) -> None:
        self._model_name = model_name
        self._timeout_s = timeout_s
        self._batch_slabs = batch_slabs
        channels = {
            target: open_channel(target, credentials, server_name=server_name) for target in targets_of(endpoint)
        }
        self._endpoints = Endpoints([Endpoint(*each) for each in channels.items()], model_name)

    def __enter__(self) -> ServingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way end with an error."""
        self._endpoints.close()

    @property
    def circuits(self) -> dict[str, CircuitState]:
        """Whether requests go to each endpoint."""
        return self._endpoints.circuits()

    @property
    def calls(self) -> dict[tuple[str, str], int]:
        """How many calls ended how, by endpoint and code."""
        return self._endpoints.calls()

    def available(self, timeout_s: float = 2.0) -> bool:
        """Tell whether an endpoint has a version of the model ready; never raises."""
        request = serving_message("GetModelStatusRequest")()
        request.model_spec.name = self._model_name
        try:
            raw = self._endpoints.call(MODEL_STATUS, request.SerializeToString(), timeout_s)
            reply = read_message("GetModelStatusResponse", raw)
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
        if len(maps) == 1:
            return maps[0]  # as it lies in the reply: a copy takes as long as half of the transport
        return np.concatenate(maps) if maps else np.zeros((0, spec.rows, spec.columns), np.float32)

    def _ask_spec(self, inputs: Mapping[str, list[wire.Part]]) -> Any:
        model_spec = self._model_spec(SPEC_SIGNATURE).SerializeToString()
        request = wire.predict_request_bytes(model_spec, inputs)
        return read_message("PredictResponse", self._endpoints.call(PREDICT, request, self._timeout_s))

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
        raw = self._endpoints.call(PREDICT, request, self._timeout_s, elsewhere=True)
        return probability_maps(raw, spec.output_name, (len(hu), spec.rows, spec.columns))

    def _model_spec(self, signature_name: str, version: int | None = None) -> Any:
        model_spec = serving_message("ModelSpec")(name=self._model_name, signature_name=signature_name)
        if version is not None:
            model_spec.version.value = version
        return model_spec
