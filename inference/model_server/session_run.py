"""Runs a session as TF Serving runs it: no silent cast, and no check of shapes beyond the graph's own.

`Session.run` casts double to float and refuses shapes that differ from the declared ones; TF Serving does neither.
`DirectRun` calls the C session below it. That entry is only half public, so it is used where it is present and
`PublicRun` stands in elsewhere, with a type check of its own; `tests/inference/test_session_run.py` holds both to the
same answers on the pinned TensorFlow. `RankedRun` keeps from either what would end the process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]


# TensorFlow's C++ names types by C's words, its Python by their bits.
C_TYPE_NAMES = {"float16": "half", "float32": "float", "float64": "double"}

AXIS_OPERATIONS = ("Conv", "Pool", "FusedBatchNorm")  # parts of the names of operations that look for axes


class Run(Protocol):
    """Runs one session."""

    def __call__(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int) -> list[Array]:
        """Feed arrays by tensor name and give the fetched ones; `timeout_ms` 0 waits without limit.

        Raises:
            tf.errors.OpError: the run failed, or a name is not in the graph.
        """


def session_run(session: tf.compat.v1.Session) -> Run:
    """Give the direct way to run a session, or the public one where TensorFlow lacks the direct one."""
    try:
        return DirectRun(session)
    except (ImportError, AttributeError):
        return PublicRun(session)


def type_name(dtype: Any) -> str:
    """Name a type as TensorFlow's C++ messages do, e.g. "float" for float32."""
    name = str(tf.dtypes.as_dtype(dtype).name)
    return C_TYPE_NAMES.get(name, name)


class DirectRun:
    """Calls the C session (TF_SessionRun) as TF Serving does; it lets other threads run meanwhile."""

    def __init__(self, session: tf.compat.v1.Session) -> None:
        from tensorflow.python.client import pywrap_tf_session

        self._session = session
        self._handle = session._session
        for operation in session.graph.get_operations():
            for tensor in operation.outputs:
                tensor._as_tf_output  # noqa: B018  what is missing shall be missed here, not in the first request
        self._run = pywrap_tf_session.TF_SessionRun_wrapper
        self._options = _RunOptionsBuffer(pywrap_tf_session)
        self._outputs: dict[str, Any] = {}

    def __call__(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int) -> list[Array]:
        """Run once; see `Run`."""
        fed = {self._output(name): array for name, array in feeds.items()}
        fetched = [self._output(name) for name in fetches]
        if not timeout_ms:
            return _arrays(self._run(self._handle, None, fed, fetched, [], None))
        with self._options.of(timeout_ms) as options:
            return _arrays(self._run(self._handle, options, fed, fetched, [], None))

    def _output(self, name: str) -> Any:
        if name not in self._outputs:
            self._outputs[name] = _tensor(self._session.graph, name)._as_tf_output()
        return self._outputs[name]


class PublicRun:
    """Calls `Session.run`, with the check of types that it lacks. It refuses shapes other than the declared ones."""

    def __init__(self, session: tf.compat.v1.Session) -> None:
        self._session = session

    def __call__(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int) -> list[Array]:
        """Run once; see `Run`."""
        for place, (name, array) in enumerate(feeds.items()):
            expected, provided = type_name(_tensor(self._session.graph, name).dtype), type_name(array.dtype)
            if expected != provided:
                message = f"Expects arg[{place}] to be {expected} but {provided} is provided"
                raise tf.errors.InvalidArgumentError(None, None, message)
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        wanted = [_tensor(self._session.graph, name) for name in fetches]
        try:
            values = self._session.run(wanted, dict(feeds), options=options)
        except ValueError as error:  # a shape that differs from the declared one
            raise tf.errors.InvalidArgumentError(None, None, str(error)) from error
        return _arrays(values)


class RankedRun:
    """Refuses arrays of another number of axes than declared, where a kernel would end the whole process for them.

    Convolutions and their like look for an axis by its place, and oneDNN's ends the process where it is missing; TF
    Serving ends there too. A graph without such operations is run with whatever comes, as TF Serving does.

    Args:
        run: runs the session.
        meta_graph: MetaGraphDef of its graph.

    Reference:
        tensorflow/core/util/tensor_format.h (GetTensorDimIndex).
    """

    def __init__(self, run: Run, meta_graph: Any) -> None:
        self._run = run
        self._declared = _declared_inputs(meta_graph) if _looks_for_axes(meta_graph.graph_def) else {}

    def __call__(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int) -> list[Array]:
        """Run once; see `Run`."""
        for name, array in feeds.items():
            dtype, rank = self._declared.get(name, (array.dtype, array.ndim))
            if array.ndim != rank and array.dtype == dtype:  # another type is refused before any kernel runs
                sizes = ",".join(map(str, array.shape))
                raise tf.errors.InvalidArgumentError(None, None, f"input must be {rank}-dimensional: [{sizes}]")
        return self._run(feeds, fetches, timeout_ms)


def _declared_inputs(meta_graph: Any) -> dict[str, tuple[Any, int]]:
    """Give type and number of axes of each signature's inputs, by tensor name."""
    inputs = (tensor for signature in meta_graph.signature_def.values() for tensor in signature.inputs.values())
    return {
        tensor.name: (np.dtype(tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype), len(tensor.tensor_shape.dim))
        for tensor in inputs
        if tensor.HasField("tensor_shape") and not tensor.tensor_shape.unknown_rank
    }


def _looks_for_axes(graph_def: Any) -> bool:
    functions = (function.node_def for function in graph_def.library.function)
    nodes = itertools.chain(graph_def.node, *functions)
    return any(kind in node.op for node in nodes for kind in AXIS_OPERATIONS)


class _RunOptionsBuffer:
    """Makes the C buffer that carries RunOptions into one run, and frees it after."""

    def __init__(self, pywrap_tf_session: Any) -> None:
        self._new = pywrap_tf_session.TF_NewBufferFromString
        self._delete = pywrap_tf_session.TF_DeleteBuffer

    @contextmanager
    def of(self, timeout_ms: int) -> Iterator[Any]:
        buffer = self._new(tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms).SerializeToString())
        try:
            yield buffer
        finally:
            self._delete(buffer)


def _arrays(values: Sequence[Any]) -> list[Array]:
    """Give scalars, which TensorFlow hands over as plain values, as arrays too."""
    return [np.asarray(value, object if isinstance(value, bytes) else None) for value in values]


def _tensor(graph: tf.Graph, name: str) -> Any:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        message = f"Tensor {name}, specified in either feed_devices or fetch_devices was not found in the Graph"
        raise tf.errors.InvalidArgumentError(None, None, message) from error
