"""What a monitoring host asks a process by HTTP: metrics, health and readiness, each made when it is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REQUEST_S = 5.0  # a client that says nothing is dropped
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Page:
    """One answer."""

    content_type: str
    text: str
    status: HTTPStatus = HTTPStatus.OK


def report_page(report: Mapping[str, Any], *, failing: bool) -> Page:
    """Give a report as JSON: 503 where a balancer or a supervisor must act, else 200."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
    return Page("application/json", json.dumps(report) + "\n", status)


class ProbeServer:
    """Serves GET of a few paths from a thread of its own.

    Args:
        address: host and port; port 0 takes a free one.
        pages: makes the page of each path.
        name: of the thread.

    Raises:
        OSError: the port cannot be opened.
    """

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Callable[[], Page]], *, name: str) -> None:
        self._server = _Server(address, _Handler)
        self._server.pages = pages
        self._thread = threading.Thread(target=self._server.serve_forever, name=name, daemon=True)
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
    pages: Mapping[str, Callable[[], Page]]


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        make = self.server.pages.get(self.path)
        page = self._unknown() if make is None else make()
        content = page.text.encode()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: a scrape every few seconds is no event."""

    def _unknown(self) -> Page:
        *first, last = self.server.pages
        known = f"Known here: {', '.join(first)} and {last}.\n"
        return Page("text/plain; charset=utf-8", known, HTTPStatus.NOT_FOUND)
