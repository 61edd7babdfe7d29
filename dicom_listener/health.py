"""Metrics and health over HTTP, for the monitoring host."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dicom_listener.metrics import Metrics

REQUEST_S = 5.0  # a client that says nothing is dropped


class HealthServer:
    """Serves GET /metrics, /health and /ready.

    Args:
        address: host and port; port 0 takes a free one.
        metrics: what /metrics shows.
        ailments: gives what is wrong, in words; empty: healthy.
        notes: gives what a person should look at, though no new start would mend it.
        not_ready: tries whether an image could be taken, and gives what is wrong.

    Raises:
        OSError: the port cannot be opened.
    """

    def __init__(
        self,
        address: tuple[str, int],
        metrics: Metrics,
        ailments: Callable[[], list[str]],
        notes: Callable[[], list[str]],
        not_ready: Callable[[], list[str]],
    ) -> None:
        self._server = _Server(address, _Handler)
        self._server.metrics = metrics
        self._server.notes = notes
        self._server.checks = {"/health": ailments, "/ready": lambda: [*ailments(), *not_ready()]}
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
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
    metrics: Metrics
    notes: Callable[[], list[str]]
    checks: dict[str, Callable[[], list[str]]]


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path == "/metrics":
            self._answer(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self.server.metrics.exposition())
        elif self.path in self.server.checks:
            reasons = list(dict.fromkeys(self.server.checks[self.path]()))
            status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
            report = {"status": "failing" if reasons else "ok", "reasons": reasons, "notes": self.server.notes()}
            body = json.dumps(report)
            self._answer(status, "application/json", body + "\n")
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
