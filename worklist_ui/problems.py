"""What a program is told when it does not get what it asked for: problem details (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from flask import Response, request

PROGRAM_PATHS = ("/api/", "/dicomweb/")
MEDIA_TYPE = "application/problem+json"


def for_program() -> bool:
    """Say whether this request came to an address that programs use."""
    return request.path.startswith(PROGRAM_PATHS)


def problem(status: int, detail: str, *, title: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """Give an answer that says what was wrong.

    Args:
        status: of HTTP.
        detail: what was found, what was expected and what to do.
        title: the kind of problem; the status's own phrase where empty.
        headers: further ones.
    """
    values = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(json.dumps(values), status=status, mimetype=MEDIA_TYPE, headers=dict(headers or {}))
