"""Outputs of Predict, Classify and Regress as JSON, in TF Serving's forms.

Reference:
    tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.model_server.json_text import decimal
from inference.model_server.session_run import Array, type_name
from inference.model_server.statuses import invalid_argument

BYTES_SUFFIX = "_bytes"  # outputs of strings whose name ends so are bytes, and go as base64
INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"})


def rows_json(outputs: Mapping[str, Array]) -> str:
    """Write outputs as `predictions`: a value for each row, or an object where there are several outputs.

    Raises:
        StatusError: an output has no rows, or not as many as another.
    """
    batch: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch is not None and len(array) != batch:
            raise invalid_argument(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch}")
        batch = len(array)
    columns = {name: [_written_array(name, row) for row in array] for name, array in outputs.items()}
    if len(columns) == 1:
        [rows] = columns.values()
    else:
        rows = [_written_object(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return '{\n    "predictions": [' + ", ".join(rows) + "\n    ]\n}"


def columns_json(outputs: Mapping[str, Array]) -> str:
    """Write outputs as `outputs`: the value itself, or an object where there are several."""
    written_outputs = {name: _written_array(name, array) for name, array in outputs.items()}
    [*values] = written_outputs.values()
    body = values[0] if len(values) == 1 else _written_object(written_outputs)
    return '{\n    "outputs": ' + body + "\n}"


def classifications_json(result: Any) -> str:
    """Write a ClassificationResult: for each example a list of (label, score)."""
    rows = [
        "[" + ", ".join(f"[{json.dumps(each.label)}, {decimal(each.score, single=True)}]" for each in row.classes) + "]"
        for row in result.classifications
    ]
    return '{\n    "results": [' + ", ".join(rows) + "\n    ]\n}"


def regressions_json(result: Any) -> str:
    """Write a RegressionResult: a number for each example."""
    values = [decimal(each.value, single=True) for each in result.regressions]
    return '{\n    "results": [' + ", ".join(values) + "]\n}"


def _written_object(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in fields.items()) + "}"


def _written_array(name: str, array: Any) -> str:
    array = np.asarray(array)
    if array.ndim:
        return "[" + ", ".join(_written_array(name, each) for each in array) + "]"
    value = array.item()
    if isinstance(value, bytes | str):
        value = value if isinstance(value, bytes) else value.encode()
        if name.endswith(BYTES_SUFFIX):
            return json.dumps({"b64": base64.b64encode(value).decode()})
        return json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False)
    if array.dtype.kind == "b":
        return "true" if value else "false"
    if type_name(array.dtype) in INTEGERS:
        return str(value)
    if type_name(array.dtype) in ("float", "double", "half"):
        return decimal(value, single=array.dtype.itemsize < 8)
    raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(array.dtype)}")
