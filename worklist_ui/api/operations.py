"""One operation a route: what it takes and gives, and the table from which the OpenAPI document is made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ValidationError

from worklist_ui.problems import problem

PREFIX = "/api/v1"
JSON, EVENTS = "application/json", "text/event-stream"
pages = Blueprint("api", __name__, url_prefix=PREFIX)


@dataclass(frozen=True)
class Operation:
    """One route of the API as the document describes it."""

    endpoint: str
    method: str
    path: str  # as Flask writes it, below PREFIX
    summary: str
    description: str
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    answer: type[BaseModel] | None  # None: described elsewhere
    media_type: str
    problems: tuple[int, ...]


OPERATIONS: dict[str, Operation] = {}  # by endpoint; filled when this package is imported, and never after


def operation(
    method: str,
    path: str,
    *,
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    answer: type[BaseModel] | None = None,
    media_type: str = JSON,
    problems: tuple[int, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., ResponseReturnValue]]:
    """Make a function an operation: it gets `query` and `body` checked, and gives a model or a Response.

    Args:
        method: of HTTP.
        path: below PREFIX.
        query: what the address may ask.
        body: what must be sent, as JSON.
        answer: what is given with status 200.
        media_type: of the answer.
        problems: further statuses that it answers with problem details.
    """

    def register(function: Callable[..., Any]) -> Callable[..., ResponseReturnValue]:
        @functools.wraps(function)
        def view(**path_values: Any) -> ResponseReturnValue:
            try:
                asked = (
                    path_values | ({"query": _query(query)} if query else {}) | ({"body": _body(body)} if body else {})
                )
            except _Refused as refused:
                return problem(refused.status, str(refused))
            given = function(**asked)
            return given if isinstance(given, Response) else Response(given.model_dump_json(), mimetype=JSON)

        summary, _, description = (function.__doc__ or "").partition("\n")
        endpoint = f"api.{function.__name__}"
        OPERATIONS[endpoint] = Operation(
            endpoint, method, path, summary.rstrip("."), " ".join(description.split()), query, body, answer, media_type,
            (*_always(query, body), *problems),
        )  # fmt: skip
        pages.add_url_rule(path, function.__name__, view, methods=[method])
        return view

    return register


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def _always(query: type[BaseModel] | None, body: type[BaseModel] | None) -> tuple[int, ...]:
    """Give the statuses that any operation of this kind may answer."""
    return (*((400,) if query or body else ()), 401, 403, *((413, 415) if body else ()), 503)


def _query(model: type[BaseModel]) -> BaseModel:
    doubled = [name for name, values in request.args.lists() if len(values) > 1]
    if doubled:
        raise _Refused(400, f"{doubled[0][:64]} is given more than once.")
    try:
        return model.model_validate_strings(request.args.to_dict())
    except ValidationError as error:
        raise _Refused(400, explained(error)) from error


def _body(model: type[BaseModel]) -> BaseModel:
    if request.mimetype != JSON:
        raise _Refused(415, f"The body must be {JSON}; received {request.mimetype[:64] or 'no type'}.")
    try:
        return model.model_validate_json(request.get_data(), strict=True)
    except ValidationError as error:
        raise _Refused(400, explained(error)) from error


def explained(error: ValidationError) -> str:
    """Say what does not fit, without repeating what was sent."""
    items = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(_complaint(item) for item in items[:5]) + "."


def _complaint(item: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in item["loc"])[:64]
    return f"{name}: {item['msg']}" if name else str(item["msg"])
