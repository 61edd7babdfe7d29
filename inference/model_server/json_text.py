"""JSON text as TF Serving reads and writes it (RapidJSON's words, and its own form of decimals).

Reference:
    tensorflow_serving/util/json_tensor.cc (ParseJson, WriteDecimal), rapidjson/error/en.h.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from inference.model_server.statuses import invalid_argument

# Python's words for a parse error, and RapidJSON's.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_TYPE_NAMES = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def parsed_object(text: bytes) -> dict[str, Any]:
    """Parse the body of a request, which must be a JSON object.

    Raises:
        StatusError: it is empty, no JSON, or no object.
    """
    if not text:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = json.loads(text.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        words = _PARSE_ERRORS.get(error.msg, "Missing a comma or } after an object member.")
        if error.msg == "Expecting ',' delimiter" and _in_array(error):
            words = "Missing a comma or ] after an array element."
        raise invalid_argument(f"JSON Parse error: {words} at offset: {error.pos}") from error
    except (RecursionError, ValueError) as error:
        raise invalid_argument("JSON Parse error: Invalid value. at offset: 0") from error
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {written(document)} Is not object")
    return document


def written(value: Any) -> str:
    """Write a JSON value for an error message."""
    if isinstance(value, float):
        return decimal(value)
    return json.dumps(value, indent=4, ensure_ascii=False)


def json_value(value: Any) -> str:
    """Name the kind of a JSON value."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return _TYPE_NAMES[type(value)]


def decimal(value: float, *, single: bool = False) -> str:
    """Write a number with as few digits as tell it apart: six, or all that its type has.

    Args:
        value: the number.
        single: it is a float32, for which nine digits are all.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.6g}"
    same = np.float32(float(text)) == np.float32(value) if single else float(text) == value
    if not same:
        text = f"{value:.{9 if single else 17}g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _in_array(error: json.JSONDecodeError) -> bool:
    """Tell whether the error lies in an array rather than in an object: by the last bracket that is open."""
    open_brackets = []
    for character in error.doc[: error.pos]:
        if character in "[{":
            open_brackets.append(character)
        elif character in "]}" and open_brackets:
            open_brackets.pop()
    return bool(open_brackets) and open_brackets[-1] == "["
