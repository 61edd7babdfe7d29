"""The embedded model server: models from a folder, gRPC on one port and REST on another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inference.model_server.batch_scheduler import BatchScheduler
from inference.model_server.batching_parameters import read_batching_parameters
from inference.model_server.grpc_services import NoSuchMethod, RawMethods, serving_methods
from inference.model_server.metrics import Metrics
from inference.model_server.model_config import (
    ModelConfig,
    checked_configs,
    folder_configs,
    read_server_config,
    read_text_message,
)
from inference.model_server.reload import ConfigReloader
from inference.model_server.rest import METRICS_PATH, RestOptions, RestServer
from inference.model_server.servable import Servable, SessionThreads, load_servable
from inference.model_server.servable_manager import ManagerTimes, ServableManager
from inference.model_server.serving_api import ServingApi
from inference.model_server.statuses import StatusError
from inference.model_server.warm_up import warm_up
from triage.errors import ConfigError, ServingError
from triage.settings import ServerSettings
from triage.stop_signal import StopSignal

log = structlog.get_logger()

HEALTH_NAMES = ("", "ModelService", "PredictionService")  # the short names that TF Serving registers
STOP_GRACE_S = 5.0  # for requests under way when the server is told to stop


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    grpc: int
    rest: int


class ModelServer:
    """Serves models until stopped.

    Args:
        settings: folder, ports, threads and limits.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        times = ManagerTimes(settings.poll_interval_s, settings.load_retries, settings.load_retry_interval_s)
        metrics = Metrics()
        self._batches = _batch_scheduler(settings)
        self.manager = ServableManager(model_loader(settings, self._batches, metrics), times)
        reloader = ConfigReloader(self.manager, metrics, settings.models_folder)
        self._api = ServingApi(self.manager, metrics, reloader)
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._grpc: grpc.Server | None = None
        self._rest: RestServer | None = None

    def start(self, give_up: threading.Event | StopSignal | None = None) -> Ports:
        """Load the models, then open the port: whoever can connect is answered.

        Args:
            give_up: when set, waiting for models ends.

        Raises:
            ConfigError: there is no model folder, or the port cannot be had.
            ServingError: a model failed to load.
        """
        configs = self._configs()
        try:
            return self._start(configs, give_up)
        except BaseException:
            self.stop()
            raise

    def _configs(self) -> list[ModelConfig]:
        settings = self._settings
        if settings.models_config_file is None:
            return folder_configs(settings.models_folder)
        server_config = read_server_config(settings.models_config_file)
        try:
            return checked_configs(server_config, settings.models_folder)
        except StatusError as error:
            raise ConfigError(f"{settings.models_config_file} cannot be used: {error.message}") from error

    def _start(self, configs: list[ModelConfig], give_up: threading.Event | StopSignal | None) -> Ports:
        try:
            labels = {config.name: dict(config.labels) for config in configs}
            self.manager.set_labels(labels, before_available=self._settings.labels_before_available)
            if self._batches is not None:
                self._batches.start()
            self.manager.start(configs)
            self.manager.wait_until_available([config.name for config in configs], give_up)
        except StatusError as error:
            message = f"Failed to start server. Error: {error.code.name}: {error.message}"
            raise ServingError(message, code=error.code.name) from error
        ports = Ports(self._open_grpc(), self._open_rest())
        log.info("server_ready", grpc_port=ports.grpc, rest_port=ports.rest)
        return ports

    def stop(self) -> None:
        """Answer what is under way, close the ports and free the models."""
        self._health.enter_graceful_shutdown()
        if self._rest is not None:
            self._rest.stop()
        if self._grpc is not None:
            self._grpc.stop(STOP_GRACE_S).wait()
        self.manager.stop()
        if self._batches is not None:
            self._batches.stop()

    def _open_grpc(self) -> int:
        settings = self._settings
        server = grpc.server(
            futures.ThreadPoolExecutor(settings.grpc_threads, thread_name_prefix="grpc"),
            handlers=[RawMethods(serving_methods(self._api, as_content=settings.reply_tensor_content))],
            maximum_concurrent_rpcs=settings.requests_in_flight,
            options=[
                ("grpc.max_receive_message_length", settings.largest_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the traffic
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers([NoSuchMethod()])
        for name in HEALTH_NAMES:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            port = _add_port(server, f"{settings.host}:{settings.port}", settings.ssl_config_file)
        except RuntimeError as error:
            raise _port_error(settings.host, settings.port) from error
        server.start()
        self._grpc = server
        return port

    def _open_rest(self) -> int:
        settings = self._settings
        options = RestOptions(metrics_path(settings.monitoring_config_file), settings.largest_message_bytes)
        try:
            self._rest = RestServer(self._api, settings.host, settings.rest_port, options)
        except OSError as error:
            raise _port_error(settings.host, settings.rest_port) from error
        self._rest.start()
        return self._rest.port


def _batch_scheduler(settings: ServerSettings) -> BatchScheduler | None:
    if settings.batching_parameters_file is None:
        return None
    return BatchScheduler(read_batching_parameters(settings.batching_parameters_file))


def model_loader(
    settings: ServerSettings, batches: BatchScheduler | None, metrics: Metrics
) -> Callable[[Path], Servable]:
    """Give the function that loads, and warms up, the version in a folder."""
    threads = SessionThreads(settings.intra_op_threads, settings.inter_op_threads)

    def load(path: Path) -> Servable:
        with metrics.loading(path):
            servable = load_servable(path, threads)
        try:
            if batches is not None:
                servable.batched(batches, metrics)
            warm_up(servable, path)
        except BaseException:
            servable.close()
            raise
        return servable

    return load


def _add_port(server: grpc.Server, address: str, ssl_config_file: Path | None) -> int:
    if ssl_config_file is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, server_credentials(ssl_config_file))


def server_credentials(ssl_config_file: Path) -> grpc.ServerCredentials:
    """Give the TLS credentials of an SSLConfig in text form, which holds PEM itself and no paths.

    Raises:
        ConfigError: it is no SSLConfig, or lacks a key, a certificate, or the authority that clients are checked by.
    """
    config = read_text_message(ssl_config_file, "SSLConfig")
    if not config.server_key or not config.server_cert:
        raise ConfigError(f"{ssl_config_file} lacks server_key or server_cert; expected both, as PEM text.")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            f"{ssl_config_file} asks for client_verify and lacks custom_ca; expected the clients' authority."
        )
    authority = config.custom_ca.encode() or None
    pair = (config.server_key.encode(), config.server_cert.encode())
    return grpc.ssl_server_credentials([pair], authority, config.client_verify)


def metrics_path(monitoring_config_file: Path | None) -> str | None:
    """Give the path of the metrics; None: they are off.

    Raises:
        ConfigError: the file is no MonitoringConfig in text form.
    """
    if monitoring_config_file is None:
        return METRICS_PATH
    config = read_text_message(monitoring_config_file, "MonitoringConfig").prometheus_config
    return (config.path or METRICS_PATH) if config.enable else None


def _port_error(host: str, port: int) -> ConfigError:
    return ConfigError(f"Port {port} of {host} cannot be had: is another server on it?")
