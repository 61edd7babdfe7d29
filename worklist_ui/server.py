"""gunicorn with the application in it: one process of many threads.

One process, because what it holds is shared: the snapshot of the list that all streams send from, the volumes behind
the previews, and the count of tries to sign in. A stream is a thread that sleeps.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from triage import logs
from triage.ledger import Ledger
from triage.settings import Settings
from worklist_ui.app import create_app
from worklist_ui.services import EXTENSION, Services

THREADS_BESIDE_STREAMS = 24  # for pages and pictures
GRACE_S = 5
log = structlog.get_logger()


class EventLogger(Logger):  # type: ignore[misc]
    """Sends gunicorn's own lines to our log, as events without text; requests are not logged."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002
        """Let the root handler do it."""
        self.error_log.handlers, self.access_log.handlers = [], []
        self.error_log.propagate, self.access_log.propagate = True, False
        self.error_log.setLevel(logging.WARNING)


class WorklistServer(BaseApplication):  # type: ignore[misc]
    """The worklist as gunicorn runs it."""

    def __init__(self, settings: Settings, secret_key: bytes, when_ready: Callable[[int], None]) -> None:
        self._settings = settings
        self._secret_key = secret_key
        self._when_ready = when_ready
        super().__init__()

    def load_config(self) -> None:
        """Hand our settings to gunicorn."""
        for name, value in gunicorn_options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", self._ready)

    def load(self) -> Any:
        """Build the application, in the worker process: no ledger connection crosses a fork."""
        return create_app(self._settings, Ledger(self._settings.storage.ledger_path), secret_key=self._secret_key)

    def _ready(self, arbiter: Any) -> None:
        port = arbiter.LISTENERS[0].sock.getsockname()[1]
        log.info("worklist_ready", port=port)
        self._when_ready(port)


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Give gunicorn's settings for ours."""
    worklist = settings.worklist
    host = f"[{worklist.host}]" if ":" in worklist.host else worklist.host
    return {
        "bind": f"{host}:{worklist.port}",
        "worker_class": "gthread",
        "workers": 1,
        "threads": worklist.open_lists + THREADS_BESIDE_STREAMS,
        "worker_connections": 4 * (worklist.open_lists + THREADS_BESIDE_STREAMS),
        "timeout": 60,
        "graceful_timeout": GRACE_S,
        "keepalive": 15,
        "certfile": _text(worklist.certificate),
        "keyfile": _text(worklist.certificate_key),
        "logger_class": EventLogger,
        "post_worker_init": _end_streams_on_term,
        "control_socket_disable": True,
        "proc_name": "ich-triage-worklist",
    }


def _end_streams_on_term(worker: Any) -> None:
    """Let open streams end when the process is told to stop: gunicorn waits for its threads."""
    found: Services = worker.app.wsgi().extensions[EXTENSION]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        usual = signal.getsignal(number)

        def handler(received: int, frame: FrameType | None, usual: Any = usual) -> None:
            # in a thread of its own: close() takes a lock, which this thread may hold when a second signal comes
            threading.Thread(target=found.live.close).start()
            if callable(usual):
                usual(received, frame)

        signal.signal(number, handler)


def serve(settings: Settings, secret_key: bytes, *, when_ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; ends the process.

    Args:
        settings: all sections.
        secret_key: signs session cookies.
        when_ready: called once with the port, as soon as browsers can connect.
    """
    logs.configure(settings.log, process="worklist")
    WorklistServer(settings, secret_key, when_ready).run()


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
