"""Answers HandleReloadConfigRequest: another list of models for a running server.

Reference:
    tensorflow_serving/model_servers/model_service_impl.cc, server_core.cc (ReloadConfig).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.model_server.metrics import Metrics
from inference.model_server.model_config import TENSORFLOW, checked_configs, platform_changes
from inference.model_server.servable_manager import ServableManager
from inference.model_server.statuses import OK, invalid_argument
from inference.serving_messages import serving_message


@dataclass(frozen=True)
class ConfigReloader:
    """Takes over lists of models, one after the other.

    Attributes:
        manager: serves them.
        metrics: whose increase a request may ask for.
        models_folder: stands for the container's /models.
    """

    manager: ServableManager
    metrics: Metrics
    models_folder: Path
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def reload(self, request: Any, timeout_ms: int) -> Any:
        """Give the ReloadConfigResponse, once every new model is available.

        Raises:
            StatusError: as TF Serving answers; the models of before stay.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        before = {name: self.metrics.value(name) for name in request.metric_names}
        with self._turn:
            self._take_over(request.config, timeout_ms)
        reply = serving_message("ReloadConfigResponse")()
        reply.status.error_code = OK
        for name, value in before.items():
            reply.metric.add(name=name, int64_value_increase=self.metrics.value(name) - value)
        return reply

    def _take_over(self, server_config: Any, timeout_ms: int) -> None:
        served = {config.name for config in self.manager.configs()}
        platform_changes(dict.fromkeys(served, TENSORFLOW), server_config.model_config_list.config)
        configs = checked_configs(server_config, self.models_folder)
        self.manager.set_labels({config.name: dict(config.labels) for config in configs})
        self.manager.configure(configs)
        new = [config.name for config in configs if config.name not in served]
        self.manager.wait_until_available(new, timeout_s=timeout_ms / 1000 if timeout_ms else None)
