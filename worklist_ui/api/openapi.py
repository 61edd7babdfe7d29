"""The OpenAPI 3.1 document of the API, made from its models and its table of operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from worklist_ui.api.models import Problem
from worklist_ui.api.operations import EVENTS, JSON, OPERATIONS, PREFIX, Operation
from worklist_ui.problems import MEDIA_TYPE
from worklist_ui.scopes import SCOPES

VERSION = "1.0.0"
REFERENCE = "#/components/schemas/{model}"
PATH_NUMBER = re.compile(r"<int\(max=(\d+)\):(\w+)>")
Json = dict[str, Any]
ABOUT = (
    "The reading list of ich-triage for other programs: studies and what was found in them, what readers do, and a "
    "stream of changes. Show a token as `Authorization: Bearer`; `ich-triage users token` makes one. Triage only: the "
    "results order a list, and say nothing on which a patient may be treated."
)


def document() -> Json:
    """Give the document."""
    schemas, definitions = _schemas()
    paths: dict[str, Json] = {}
    for operation in OPERATIONS.values():
        paths.setdefault(_path(operation), {})[operation.method.lower()] = _operation(operation, schemas, definitions)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ich-triage", "version": VERSION, "description": ABOUT},
        "servers": [{"url": PREFIX}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Made for its scopes."}},
        },
    }


def _schemas() -> tuple[Mapping[type[BaseModel], Json], Json]:
    """Give each model's schema by reference, and all definitions."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for operation in OPERATIONS.values():
        wanted += [(model, "validation") for model in (operation.query, operation.body) if model]
        wanted += [(operation.answer, "serialization")] if operation.answer else []
    found, whole = models_json_schema(wanted, ref_template=REFERENCE)
    return {model: found[model, mode] for model, mode in wanted}, whole["$defs"]


def _path(operation: Operation) -> str:
    return PATH_NUMBER.sub(r"{\2}", operation.path)


def _operation(operation: Operation, schemas: Mapping[type[BaseModel], Json], definitions: Json) -> Json:
    described: Json = {
        "operationId": operation.endpoint.removeprefix("api."),
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, definitions)],
        "responses": _responses(operation, schemas),
        "security": [{"token": [scope]} for scope in sorted(SCOPES[operation.endpoint])],
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas[operation.body]}}}
    return {name: value for name, value in described.items() if value}


def _path_parameters(operation: Operation) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "format": "int64", "minimum": 0, "maximum": int(largest)},
        }
        for largest, name in PATH_NUMBER.findall(operation.path)
    ]


def _query_parameters(operation: Operation, definitions: Json) -> list[Json]:
    if operation.query is None:
        return []
    properties = definitions[operation.query.__name__]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": operation.query.model_fields[name].description or "",
            "schema": _without_null({key: value for key, value in schema.items() if key != "description"}),
        }
        for name, schema in properties.items()
    ]


def _without_null(schema: Json) -> Json:
    """Give the schema of a parameter: left out instead of null, which no address can say."""
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    return choices[0] if len(choices) == 1 else schema


def _responses(operation: Operation, schemas: Mapping[type[BaseModel], Json]) -> Json:
    schema = schemas[operation.answer] if operation.answer else {"type": "object"}
    content = {"schema": {"type": "string"}} if operation.media_type == EVENTS else {"schema": schema}
    described: Json = {"200": {"description": "Done", "content": {operation.media_type: content}}}
    for status in sorted(set(operation.problems)):
        described[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schemas[Problem]}},
        }
    return described
