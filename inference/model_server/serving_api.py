"""The calls of the endpoint behind both doors, gRPC and REST, each counted in the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.model_server import examples
from inference.model_server.metrics import Metrics
from inference.model_server.model_metadata import model_metadata, model_status
from inference.model_server.predict import PredictReply, predict
from inference.model_server.predict_request import PredictRequest
from inference.model_server.reload import ConfigReloader
from inference.model_server.servable_manager import ServableManager

GRPC, REST = "GRPC", "REST"


@dataclass(frozen=True)
class ServingApi:
    """Answers requests, or raises StatusError as TF Serving answers.

    `timeout_ms` is what is left of a client's deadline; 0: it set none. `entrypoint` is `GRPC` or `REST`.
    """

    manager: ServableManager
    metrics: Metrics
    reloader: ConfigReloader

    def predict(self, request: PredictRequest, timeout_ms: int, entrypoint: str) -> PredictReply:
        """Answer Predict."""
        with self.metrics.request(_name(request.model_spec), "Predict", entrypoint):
            return predict(request, self.manager, self.metrics, timeout_ms=timeout_ms)

    def classify(self, request: Any, timeout_ms: int, entrypoint: str) -> Any:
        """Answer Classify with a ClassificationResponse."""
        with self.metrics.request(request.model_spec.name, "Classify", entrypoint):
            return examples.classify(request, self.manager, self.metrics, timeout_ms=timeout_ms)

    def regress(self, request: Any, timeout_ms: int, entrypoint: str) -> Any:
        """Answer Regress with a RegressionResponse."""
        with self.metrics.request(request.model_spec.name, "Regress", entrypoint):
            return examples.regress(request, self.manager, self.metrics, timeout_ms=timeout_ms)

    def multi_inference(self, request: Any, timeout_ms: int) -> Any:
        """Answer MultiInference with a MultiInferenceResponse; TF Serving does not count it."""
        return examples.multi_inference(request, self.manager, self.metrics, timeout_ms=timeout_ms)

    def model_metadata(self, request: Any) -> Any:
        """Answer GetModelMetadata with a GetModelMetadataResponse."""
        return model_metadata(request, self.manager)

    def model_status(self, request: Any) -> Any:
        """Answer GetModelStatus with a GetModelStatusResponse."""
        return model_status(request, self.manager)

    def reload(self, request: Any, timeout_ms: int) -> Any:
        """Answer HandleReloadConfigRequest with a ReloadConfigResponse."""
        return self.reloader.reload(request, timeout_ms)


def _name(model_spec: Any | None) -> str:
    return "" if model_spec is None else str(model_spec.name)
