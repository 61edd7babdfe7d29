"""A worker's metrics and health over HTTP, for the monitoring host."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inference.worker_metrics import WorkerMetrics
from triage.errors import ConfigError

REQUEST_S = 5.0  # a client that says nothing is dropped


class WorkerProbes:
    """Serves GET /metrics, /health (200 while the worker lives) and /ready (503 while the model is away).

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        metrics: what is shown.

    Raises:
        ConfigError: the port cannot be opened.
    """

    def __init__(self, host: str, port: int, metrics: WorkerMetrics) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"Port {port} on {host} cannot be opened for metrics: {error.strerror}. "
                "Choose another with worker.metrics_port."
            ) from error
        self._server.metrics = metrics
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    metrics: WorkerMetrics


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        metrics = self.server.metrics
        if self.path == "/metrics":
            self._answer(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", metrics.exposition())
        elif self.path in ("/health", "/ready"):
            away = self.path == "/ready" and not metrics.ready
            status = HTTPStatus.SERVICE_UNAVAILABLE if away else HTTPStatus.OK
            self._answer(status, "application/json", json.dumps(metrics.state()) + "\n")
        else:
            self._answer(
                HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", "Known here: /metrics, /health and /ready.\n"
            )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: a scrape every few seconds is no event."""

    def _answer(self, status: HTTPStatus, content_type: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
