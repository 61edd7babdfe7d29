"""Examples of Classify and Regress from JSON.

Reference:
    tensorflow_serving/util/json_tensor.cc (FillClassifyRegressRequestFromJson).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.model_server.json_inputs import decoded_base64, is_base64
from inference.model_server.json_text import json_value, written
from inference.model_server.statuses import invalid_argument


def fill_examples(document: Mapping[str, Any], request: Any) -> None:
    """Put the examples of a parsed body into a ClassificationRequest or RegressionRequest.

    Raises:
        StatusError: as TF Serving answers.
    """
    target = request.input.example_list
    if "context" in document:
        target = request.input.example_list_with_context
        _fill_example(document["context"], target.context)
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(document["examples"], list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise _format_error(document, "'examples' value is an empty array")
    for value in document["examples"]:
        _fill_example(value, target.examples.add())


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_value(value)}")
    for name, content in value.items():
        feature = example.features.feature[name]
        for each in content if isinstance(content, list) else [content]:
            _add_value(each, name, feature)


def _add_value(value: Any, name: str, feature: Any) -> None:
    if isinstance(value, bool):
        _list(feature, "int64_list", name).append(int(value))
    elif isinstance(value, str):
        _list(feature, "bytes_list", name).append(value.encode())
    elif is_base64(value):
        _list(feature, "bytes_list", name).append(decoded_base64(value))
    elif isinstance(value, float):
        values = _list(feature, "float_list", name)
        if float(np.finfo(np.float32).max) < abs(value) < float("inf"):
            raise invalid_argument(f"Cannot convert JSON value: {written(value)} to float without loss of precision.")
        values.append(value)
    elif isinstance(value, int):
        values = _list(feature, "int64_list", name)
        if value not in range(-(2**63), 2**63):
            raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        values.append(value)
    else:
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_value(value)}")


def _list(feature: Any, kind: str, name: str) -> Any:
    """Give the feature's list of this kind; a feature has one kind only."""
    found = feature.WhichOneof("kind")
    if found not in (None, kind):
        expected = found.removesuffix("_list")
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {expected}")
    return getattr(feature, kind).value


def _format_error(document: Any, message: str) -> Exception:
    return invalid_argument(f"JSON Value: {written(document)} {message}")
