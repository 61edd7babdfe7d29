"""Inputs of Predict from JSON, in TF Serving's row (`instances`) and columnar (`inputs`) forms.

Reference:
    tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from inference.model_server.json_text import json_value, written
from inference.model_server.session_run import Array, type_name
from inference.model_server.statuses import StatusError, invalid_argument

B64 = "b64"
INT32 = range(-(2**31), 2**31)

# Values of JSON that each type takes; smaller integers travel as int32 and wrap.
_INTEGER_RANGES = {
    "int32": INT32,
    "int16": INT32,
    "int8": INT32,
    "uint8": INT32,
    "int64": range(-(2**63), 2**63),
    "uint32": range(2**32),
    "uint64": range(2**64),
}


def predict_inputs(
    document: Mapping[str, Any], infos: Mapping[str, Any], signature: str
) -> tuple[dict[str, Array], bool]:
    """Read the inputs of a Predict.

    Args:
        document: parsed body.
        infos: TensorInfo of each input of the signature.
        signature: its name, "" for the default one.

    Returns:
        Array by input name, and whether they came as rows.

    Raises:
        StatusError: as TF Serving answers.
    """
    if not infos:
        raise invalid_argument(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise _format_error(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise _format_error(document, "Excepting 'instances' to be an list/array")
        if not rows:
            raise _format_error(document, "No values in 'instances' array")
        return _of_rows(rows, infos), True
    if "inputs" in document:
        return _of_columns(document["inputs"], infos), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def is_base64(value: Any) -> bool:
    """Tell whether a JSON value is bytes as `{"b64": text}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(B64), str)


def decoded_base64(value: Any) -> bytes:
    """Give the bytes of `{"b64": text}`.

    Raises:
        StatusError: it is not of this form, or no base64.
    """
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {written(value)} not formatted correctly for base64 data")
    text = value[B64]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def _of_rows(rows: list[Any], infos: Mapping[str, Any]) -> dict[str, Array]:
    def is_named(row: Any) -> bool:
        return isinstance(row, dict) and not is_base64(row)

    named = is_named(rows[0])
    if not isinstance(rows[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    columns: dict[str, list[Array]] = {}
    for place, row in enumerate(rows):
        if named != is_named(row):
            found, expected = ("list", "object") if named else ("object", "value/list")
            raise invalid_argument(f"Expecting {expected} but got {found} at item {place} of input list")
        if named:
            _add_named_row(columns, row, infos, place)
        else:
            [name] = infos
            where = f"Failed to process element: {place} of 'instances' list. Error: "
            _add_item(columns, name, row, infos, where)
    return {name: np.stack(column) for name, column in columns.items()}


def _add_named_row(
    columns: dict[str, list[Array]], row: Mapping[str, Any], infos: Mapping[str, Any], place: int
) -> None:
    for name, value in row.items():
        where = f"Failed to process element: {place} key: {name} of 'instances' list. Error: "
        if name not in infos:
            raise invalid_argument(f"{where}INVALID_ARGUMENT: JSON object: does not have named input: {name}")
        _add_item(columns, name, value, infos, where)
    if set(row) != set(infos):
        raise invalid_argument(
            f"Failed to process element: {place} of 'instances' list. JSON object: {written(row)} "
            f"keys must be equal to: {','.join(sorted(infos))}"
        )


def _add_item(columns: dict[str, list[Array]], name: str, value: Any, infos: Mapping[str, Any], where: str) -> None:
    try:
        array = array_of_json(value, infos[name].dtype)
        earlier = columns.setdefault(name, [])
        if earlier and earlier[0].size != array.size:
            raise invalid_argument(f"Expecting tensor size: {earlier[0].size} but got: {array.size}")
        if earlier and earlier[0].shape != array.shape:
            raise invalid_argument(f"Expecting shape {_shape(earlier[0])} but got: {_shape(array)}")
    except StatusError as error:
        raise invalid_argument(f"{where}{error.code.name}: {error.message}") from error
    earlier.append(array)


def _of_columns(value: Any, infos: Mapping[str, Any]) -> dict[str, Array]:
    if not isinstance(value, dict) or is_base64(value):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        [name] = infos
        return {name: array_of_json(value, infos[name].dtype)}
    for name in infos:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: array_of_json(value[name], infos[name].dtype) for name in infos}


def array_of_json(value: Any, dtype: int) -> Array:
    """Read nested lists as an array.

    Args:
        value: scalar, string, `{"b64": text}`, or lists of them.
        dtype: number of `tensorflow.DataType`.

    Raises:
        StatusError: lists are uneven, or a value does not fit the type.
    """
    shape = _nested_shape(value)
    name = type_name(tf.dtypes.as_dtype(dtype))
    values: list[Any] = []
    _collect(value, 0, shape, _value_of(name), values)
    element = np.dtype(object) if name == "string" else np.dtype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    if name in _INTEGER_RANGES and _INTEGER_RANGES[name] == INT32:
        return np.array(values, np.int32).astype(element).reshape(shape)
    array = np.empty(len(values), element)
    array[:] = values
    return array.reshape(shape)


def _nested_shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _collect(value: Any, level: int, shape: tuple[int, ...], value_of: Callable[[Any], Any], values: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {written(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        values.append(value_of(value))
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for each in value:
        _collect(each, level + 1, shape, value_of, values)


def _value_of(name: str) -> Callable[[Any], Any]:
    """Give the function that checks and converts one JSON value to the type of this name."""
    if name in ("float", "double"):
        return lambda value: _float_of(value, name)
    if name in _INTEGER_RANGES:
        return lambda value: _integer_of(value, name)
    if name == "string":
        return _string_of
    if name == "bool":
        return lambda value: value if isinstance(value, bool) else _refuse(value, name)
    return lambda value: _unimplemented(value, name)


def _float_of(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(value, name)
    digits, largest = (
        (24, float(np.finfo(np.float32).max)) if name == "float" else (53, float(np.finfo(np.float64).max))
    )
    lossless = abs(value) < 2**digits if isinstance(value, int) else not (largest < abs(value) < float("inf"))
    if not lossless:
        raise invalid_argument(f"Cannot convert JSON value: {written(value)} to {name} without loss of precision.")
    return float(value)


def _integer_of(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INTEGER_RANGES[name]:
        _refuse(value, name)
    return int(value)


def _string_of(value: Any) -> bytes:
    if isinstance(value, dict):
        return decoded_base64(value)
    if not isinstance(value, str):
        _refuse(value, "string")
    return str(value).encode("utf-8", "surrogatepass")


def _refuse(value: Any, name: str) -> Any:
    raise invalid_argument(f"JSON Value: {written(value)} Type: {json_value(value)} is not of expected type: {name}")


def _unimplemented(value: Any, name: str) -> Any:
    message = f"Conversion of JSON Value: {written(value)} to type: {name}"
    raise StatusError(grpc.StatusCode.UNIMPLEMENTED, message)


def _format_error(document: Any, message: str) -> StatusError:
    return invalid_argument(f"JSON Value: {written(document)} {message}")


def _shape(array: Array) -> str:
    return "[" + ",".join(str(size) for size in array.shape) + "]"
