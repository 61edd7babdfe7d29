"""Both ways to run a session give the same answers on the pinned TensorFlow.

`DirectRun` calls an entry of TensorFlow that is only half public. When this file fails after a change of the pin, the
server still works with `PublicRun`, less exactly: repair `DirectRun` before the pin moves.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from types import SimpleNamespace

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from inference.model_server.session_run import DirectRun, PublicRun, RankedRun, session_run  # noqa: E402

INVALID = 3


@pytest.fixture(scope="module")
def session():
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
        tf.multiply(x, 2.0, name="doubled")
        tf.constant(b"text", name="text")
        tf.constant([b"a", b"b"], name="texts")
    with tf.compat.v1.Session(graph=graph) as session:
        yield session


def test_the_pinned_tensorflow_has_the_direct_way(session):
    assert importlib.metadata.version("tensorflow").startswith("2.20.")
    assert isinstance(session_run(session), DirectRun)


@pytest.mark.parametrize("name", ["TF_SessionRun_wrapper", "TF_NewBufferFromString", "TF_DeleteBuffer"])
def test_a_tensorflow_without_the_direct_way_is_run_the_public_way(session, monkeypatch, name):
    from tensorflow.python.client import pywrap_tf_session

    monkeypatch.delattr(pywrap_tf_session, name)

    assert isinstance(session_run(session), PublicRun)


def test_a_tensorflow_whose_tensors_lack_it_is_run_the_public_way():
    graph = SimpleNamespace(get_operations=lambda: [SimpleNamespace(outputs=[object()])])

    assert isinstance(session_run(SimpleNamespace(graph=graph, _session=None)), PublicRun)


@pytest.fixture(params=[DirectRun, PublicRun])
def run(request, session):
    return request.param(session)


@pytest.mark.parametrize("timeout_ms", [0, 20_000])
def test_fetches_come_in_order(run, timeout_ms):
    x = np.ones((3, 2), np.float32)

    text, doubled, texts = run({"x:0": x}, ["text:0", "doubled:0", "texts:0"], timeout_ms)

    assert doubled.tolist() == [[2.0, 2.0]] * 3
    assert (text.shape, text.dtype, text.item()) == ((), np.dtype(object), b"text")
    assert texts.tolist() == [b"a", b"b"]


def test_no_type_is_cast(run):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        run({"x:0": np.ones((1, 2), np.float64)}, ["doubled:0"], 0)

    if isinstance(run, PublicRun):  # this graph's input is no argument of a function: the C session words it otherwise
        assert error.value.message == "Expects arg[0] to be float but double is provided"


def test_unknown_tensors_are_an_error_of_tensorflow(run):
    with pytest.raises(tf.errors.InvalidArgumentError, match="was not found in the Graph"):
        run({}, ["none:0"], 0)


def test_only_the_direct_way_takes_other_shapes_than_declared(session):
    x = np.ones((1, 3), np.float32)

    [doubled] = DirectRun(session)({"x:0": x}, ["doubled:0"], 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Cannot feed value of shape"):
        PublicRun(session)({"x:0": x}, ["doubled:0"], 0)

    assert doubled.tolist() == [[2.0, 2.0, 2.0]]


@pytest.fixture(scope="module")
def ranked():
    """Give a function that runs a graph of one input `x` (N, 4, 4, 3) through `RankedRun`."""
    with contextlib.ExitStack() as stack:

        def run_of(operation):
            graph = tf.Graph()
            with graph.as_default():
                x = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
                tf.identity(operation(x), name="y")
            session = stack.enter_context(tf.compat.v1.Session(graph=graph))
            meta_graph = tf.compat.v1.train.export_meta_graph(graph=graph)
            meta_graph.signature_def["serving_default"].inputs["x"].CopyFrom(
                tf.compat.v1.saved_model.build_tensor_info(x)
            )
            run = RankedRun(session_run(session), meta_graph)
            return lambda array: run({"x:0": array}, ["y:0"], 0)[0]

        yield run_of


def convolved(x):
    return tf.nn.relu(tf.nn.conv2d(x, tf.ones((1, 1, 3, 2)), strides=1, padding="SAME"))


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (4, 4, 3), (1, 1, 4, 4, 3)])
def test_a_convolution_never_sees_another_number_of_axes(ranked, shape):
    sizes = ",".join(map(str, shape))

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        ranked(convolved)(np.ones(shape, np.float32))

    assert error.value.message == f"input must be 4-dimensional: [{sizes}]"


def test_a_convolution_takes_other_sizes_than_declared(ranked):
    assert ranked(convolved)(np.ones((2, 5, 6, 3), np.float32)).shape == (2, 5, 6, 2)


def test_another_type_is_refused_for_its_type_whatever_its_axes(ranked):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        ranked(convolved)(np.ones((4, 3), np.float64))

    assert "-dimensional" not in error.value.message


def test_a_graph_that_looks_for_no_axis_takes_any_number_of_them(ranked):
    assert ranked(lambda x: 2 * x)(np.ones(3, np.float32)).tolist() == [2.0, 2.0, 2.0]
