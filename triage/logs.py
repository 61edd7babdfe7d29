"""Logs: events with keys on stderr, and only keys on this list, so that no patient reaches a log.

A line tells a whole unit of work: `log.info("study_read", study_id=7, flagged=True, seconds=1.9)`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from triage.settings import LogSettings

# Values under any other key are blanked. Before adding one: can it ever hold a name, ID, date of birth, accession
# number, UID, description, pixel, or a path made of these?
ALLOWED_KEYS = frozenset(
    """
    event level timestamp logger process pid exception error_type reason state outcome cause
    study_id analysis_id revision attempt attempts instances slices slabs bytes count seconds waited_s
    calling_ae_title called_ae_title peer_host port host status association contexts
    model version endpoint code flagged series_considered completed_by evidence partial
    leftovers quarantined
    studies expected present fetched
    grpc_port rest_port workers threads signal setting username role method route http_status
    """.split()
)
BLANK = "(withheld)"
LIBRARY_LINES_A_MINUTE = 20  # of one logger
MINUTE_S = 60.0


def configure(settings: LogSettings, *, process: str) -> None:
    """Send structlog's and the standard library's logs to stderr, one line an event.

    Args:
        settings: level and format.
        process: "listener", "worker", "server", "worklist" or "trainer"; stands in every line.
    """
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _naming(process),  # not a context variable: threads would not inherit it
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _error_types_only,
            _listed_keys_only,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # today's stderr, not that of the start
        cache_logger_on_first_use=False,
    )
    # Libraries quote element values in their messages: only their warnings pass, and only as logger and level.
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(level=logging.WARNING)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)  # else they go to stderr as text, with what a peer wrote into an element


class _LibraryHandler(logging.Handler):
    """Pass a library's record on as an event without its text; of each logger a few a minute, as peers cause them."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._minutes: dict[str, tuple[float, int]] = {}  # logger: when its minute began, records in it

    def emit(self, record: logging.LogRecord) -> None:
        began_at, seen = self._minutes.get(record.name, (record.created, 0))
        if record.created - began_at >= MINUTE_S:
            began_at, seen = record.created, 0
        self._minutes[record.name] = (began_at, seen + 1)
        if seen >= LIBRARY_LINES_A_MINUTE:
            return
        error_type = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        log = structlog.get_logger().bind(logger=record.name)
        log.log(record.levelno, "library_message", **({"error_type": error_type} if error_type else {}))


def _naming(process: str) -> structlog.typing.Processor:
    def name(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return name


def _error_types_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace exc_info by the error's type and place: messages may quote element values, locals hold patients."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if isinstance(info, tuple) and info[0] is not None:
        event["error_type"] = info[0].__name__
        event["exception"] = _place(info[2])
    return event


def _place(traceback: Any) -> str:
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_qualname}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return " > ".join(places[-6:])


def _listed_keys_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if key not in ALLOWED_KEYS:
            event[key] = BLANK
    return event
