"""A worker's metrics and health over HTTP, for the monitoring host."""

from __future__ import annotations

from inference.worker_metrics import WorkerMetrics
from triage.errors import ConfigError
from triage.probe_server import PROMETHEUS, Page, ProbeServer, report_page


class WorkerProbes(ProbeServer):
    """Serves GET /metrics, /health (200 while the worker lives) and /ready (503 while the model is away).

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        metrics: what is shown.

    Raises:
        ConfigError: the port cannot be opened.
    """

    def __init__(self, host: str, port: int, metrics: WorkerMetrics) -> None:
        pages = {
            "/metrics": lambda: Page(PROMETHEUS, metrics.exposition()),
            "/health": lambda: report_page(metrics.state(), failing=False),
            "/ready": lambda: report_page(metrics.state(), failing=not metrics.ready),
        }
        try:
            super().__init__((host, port), pages, name="probes")
        except OSError as error:
            raise ConfigError(
                f"Port {port} on {host} cannot be opened for metrics: {error.strerror}. "
                "Choose another with worker.metrics_port."
            ) from error
