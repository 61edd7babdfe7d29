"""Slow models, impatient clients, floods and huge messages: the right code, and others are answered meanwhile."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from inference import wire
from inference.model_server.server import ModelServer
from inference.serving_messages import PREDICTION_SERVICE, serving_message
from triage.settings import ServerSettings

DT_DOUBLE = 2
PREDICT = f"/{PREDICTION_SERVICE}/Predict"


def write_slow_model(folder: Path) -> None:
    """Write a SavedModel that multiplies a matrix by itself as often as it is told, a few milliseconds a time."""
    import tensorflow as tf

    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="times")], autograph=False)
        def work(self, times):
            matrix = tf.random.stateless_uniform([400, 400], [1, 2]) / 400.0

            def step(done, product):
                return done + 1, tf.matmul(product, matrix)

            _, product = tf.while_loop(lambda done, _: done < times, step, [0, matrix])
            return {"sum": tf.reduce_sum(product)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
        def same(self, x):
            return {"x": x}

    model = Slow()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.work, "same": model.same})


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_slow_model(folder / "slow" / "1")
    return folder


@pytest.fixture(scope="module")
def address(models):
    server = ModelServer(
        ServerSettings(
            models_folder=models, port=0, rest_port=0, requests_in_flight=6, largest_message_bytes=32 * 2**20
        )
    )
    yield f"127.0.0.1:{server.start().grpc}"
    server.stop()


@pytest.fixture
def channel(address):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield channel


def work(times: int) -> bytes:
    request = serving_message("PredictRequest")()
    request.model_spec.name = "slow"
    request.inputs["times"].dtype = 3  # int32
    request.inputs["times"].int_val.append(times)
    return request.SerializeToString()


def same(x: np.ndarray, dtype: int = wire.DT_FLOAT) -> bytes:
    spec = serving_message("ModelSpec")(name="slow", signature_name="same").SerializeToString()
    tensor = wire.tensor_parts(dtype, x.shape, x, values_field=wire.TENSOR_CONTENT)
    return wire.predict_request_bytes(spec, {"x": tensor})


def answered(channel, timeout: float = 60) -> bool:
    return bool(channel.unary_unary(PREDICT)(same(np.ones(2, np.float32)), timeout=timeout))


def wait_until_answered(channel) -> None:
    """Wait until the runs whose deadlines passed have left the server."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with suppress(grpc.RpcError):
            if answered(channel):
                return
        time.sleep(0.05)
    pytest.fail("the server answers nobody any more")


def test_a_deadline_ends_the_run_and_not_only_the_call(channel):
    started_s = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(PREDICT)(work(10**9), timeout=0.5)

    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answered(channel)
    assert time.monotonic() - started_s < 60


def test_a_client_that_vanishes_holds_up_nobody(channel, address):
    host, port = address.split(":")
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
        call = other.unary_unary(PREDICT).future(work(2000), timeout=5)
        time.sleep(0.2)
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00")  # half a frame, then gone

    assert answered(channel)
    assert call.cancelled() or call.exception() is not None


def test_garbage_on_the_port_holds_up_nobody(channel, address):
    host, port = address.split(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1000, b"\xff" * 70000):
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(garbage)

    assert answered(channel)


def test_a_message_above_the_limit_is_resource_exhausted(channel):
    huge = np.zeros(10 * 2**20, np.float32)  # 40 MiB

    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(PREDICT)(same(huge), timeout=60)

    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answered(channel)


@pytest.mark.slow
def test_a_message_of_a_gigabyte_is_read_and_judged_like_any_other(models):
    """TF Serving takes messages of up to 2 GiB less a byte: this one is refused for its type, not for its size."""
    if available_memory_gb() < 10:
        pytest.skip("needs 10 GB of free memory: both ends of the call are in this process")
    server = ModelServer(ServerSettings(models_folder=models, port=0, rest_port=0))
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    address = f"127.0.0.1:{server.start().grpc}"
    with grpc.insecure_channel(address, options=options) as large, grpc.insecure_channel(address) as other:
        call = large.unary_unary(PREDICT).future(same(np.zeros(2**27, np.float64), dtype=DT_DOUBLE), timeout=120)
        meanwhile = [answered(other) for _ in range(5)]
        error = call.exception()

        assert meanwhile == [True] * 5
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "Expects arg[0] to be float but double is provided"
        assert answered(other)
    server.stop()


def available_memory_gb() -> float:
    """Read what the kernel has to give (Linux; 0 elsewhere)."""
    file = Path("/proc/meminfo")
    if not file.exists():
        return 0.0
    [line] = [line for line in file.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(line.split()[1]) / 2**20


def test_a_message_above_the_limit_is_an_error_of_ours_and_not_tried_again(address):
    from inference.serving_client import ServingClient
    from tests.inference.conftest import SPEC
    from triage.errors import ServingError, ServingUnavailable
    from triage.finding import ModelSpec

    hu = np.zeros((1, 3000, 3000, 2), np.int16)  # 36 MB in one slab
    spec = ModelSpec.model_validate({**SPEC, "rows": 3000, "columns": 3000})
    with ServingClient(address, "slow", timeout_s=60) as client, pytest.raises(ServingError) as error:
        client.predict(hu, spec=spec, version=1)

    assert error.value.code == "RESOURCE_EXHAUSTED"
    assert not isinstance(error.value, ServingUnavailable)


def test_more_requests_than_may_be_in_flight_are_resource_exhausted(channel):
    def code(_: int) -> grpc.StatusCode:
        try:
            channel.unary_unary(PREDICT)(work(10**9), timeout=2)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(code, range(12)))

    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.DEADLINE_EXCEEDED) <= 6
    wait_until_answered(channel)


def test_nan_and_infinities_go_in_and_out_as_they_are(channel):
    x = np.array([np.nan, np.inf, -np.inf, 0.0], np.float32)

    raw = channel.unary_unary(PREDICT)(same(x), timeout=60)

    reply = serving_message("PredictResponse").FromString(raw)
    assert np.array_equal(np.array(reply.outputs["x"].float_val, np.float32), x, equal_nan=True)


def test_a_slow_request_does_not_delay_others(channel):
    slow = channel.unary_unary(PREDICT).future(work(10**9), timeout=120)

    assert answered(channel)

    assert not slow.done()
    slow.cancel()
