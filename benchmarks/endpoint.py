"""`make bench-endpoint`: what the endpoint adds to the model, on this machine.

The shipped model is called in this process and through the embedded server over loopback, in turns, so that both see
the same load of the machine; then by several workers at once, without and with batching. Figures are ratios within one
run, medians with quartiles or extremes. `benchmarks.endpoint_runtimes` compares with OpenVINO and ONNX Runtime,
`benchmarks.endpoint_gpu` has the GPU.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from benchmarks.endpoint_runtimes import Compared, compare
from benchmarks.turns import in_turns, took_s
from inference.memory import keep_large_blocks
from inference.serving_client import ServingClient

HEAD_SLABS = 32  # 160 mm of head at 5 mm
BATCHING = Path(__file__).parents[1] / "docker" / "batching.config"
ROUNDS = 5  # of throughput, in turns
ENDS = ("sum", "count")
GOALS = {"latency": 1.05, "added_ms": 25.0, "throughput": 0.95, "start_s": 5.0, "runtime": 1.15}
METRICS_PATH = "/monitoring/prometheus/metrics"
console = Console()


@dataclass(frozen=True)
class Server:
    """A running embedded server."""

    pid: int
    port: int
    rest_port: int
    started_s: float  # from the start of its process to the port


class Rows:
    """What was measured, printed row by row as it comes."""

    def __init__(self, title: str) -> None:
        console.print(title)
        self.add_row("what", "figure", "goal")

    def add_row(self, what: str, figure: str, goal: str) -> None:
        """Print one row."""
        console.print(f"{what:58} {figure:28} {goal}", markup=False, highlight=False, soft_wrap=True)


@click.command()
@click.option("--models", type=click.Path(path_type=Path, exists=True), default=Path("models"), show_default=True)
@click.option("--model", "model_name", default="ich_unet", show_default=True, help="Name of the model.")
@click.option("--repeats", default=25, show_default=True, help="Heads, one after the other.")
@click.option("--workers", default=4, show_default=True, help="Workers that ask at once.")
def bench(models: Path, model_name: str, repeats: int, workers: int) -> None:
    """Measure latency and throughput of the endpoint against the same model in process."""
    keep_large_blocks()
    table = Rows(f"{HEAD_SLABS} slabs a head, {repeats} repeats")
    import_s = _import_s()
    with running_server(models) as server, client_of(server, model_name) as client:
        table.add_row(
            "start beyond TensorFlow's import", f"{server.started_s - import_s:.1f} s", f"{GOALS['start_s']} s"
        )
        spec, version = client.spec()
        hu = _head((HEAD_SLABS, spec.rows, spec.columns, 2 * spec.context + 1))
        alone = in_process(models / model_name / str(version), hu)
        over_loopback = lambda: client.predict(hu, spec=spec, version=version)  # noqa: E731
        _latency_rows(table, in_turns([lambda: took_s(alone), lambda: took_s(over_loopback)], repeats))
        _server_rows(table, server)
        _throughput_rows(table, alone, over_loopback, repeats, workers)
    with running_server(models, BATCHING) as server, client_of(server, model_name) as client:
        batched = lambda: client.predict(hu, spec=spec, version=version)  # noqa: E731
        ratio = throughput_ratio(batched, batched, repeats, (workers, 1))
        table.add_row(f"batching: {workers} workers / 1 worker", ratio, "1.0")
    _runtime_rows(table, compare(models / model_name / str(version), alone, hu, max(3, repeats // 2)))


@contextmanager
def running_server(models: Path, batching: Path | None = None) -> Iterator[Server]:
    """Start `ich-triage serve` on free ports; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="ich-triage-bench-") as folder:
        lines = [f"[server]\nmodels_folder = {json.dumps(str(models.resolve()))}\nport = 0\nrest_port = 0"]
        if batching is not None:
            lines.append(f"batching_parameters_file = {json.dumps(str(batching))}")
        (Path(folder) / "triage.toml").write_text("\n".join(lines))
        command = [sys.executable, "ich_triage.py", "serve", "--config", str(Path(folder) / "triage.toml")]
        started_s = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout is not None
                ports = json.loads(process.stdout.readline())
                yield Server(process.pid, ports["grpc_port"], ports["rest_port"], time.monotonic() - started_s)
            finally:
                process.terminate()
                process.wait(30)


@contextmanager
def client_of(server: Server, model_name: str) -> Iterator[ServingClient]:
    """Give a client of a running server."""
    with ServingClient(f"127.0.0.1:{server.port}", model_name, timeout_s=600, batch_slabs=HEAD_SLABS) as client:
        yield client


def in_process(version: Path, hu: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """Give a call of the same SavedModel in this process, by the same session that the server has."""
    from inference.model_server.servable import SessionThreads, load_servable

    servable = load_servable(version, SessionThreads())
    signature = servable.signature("serving_default")
    assert signature is not None
    feed, fetch = signature.inputs["hu"].name, signature.outputs["probability"].name
    return lambda: servable.run({feed: hu}, [fetch])


def heads_per_s(call: Callable[[], Any], repeats: int, workers: int) -> float:
    """Run `repeats` calls for each of some workers at once."""
    call()
    with ThreadPoolExecutor(workers) as pool:
        started_s = time.perf_counter()
        list(pool.map(lambda _: call(), range(repeats * workers)))
        return repeats * workers / (time.perf_counter() - started_s)


def throughput_ratio(call: Callable[[], Any], other: Callable[[], Any], repeats: int, workers: tuple[int, int]) -> str:
    """Give the throughput of one call over that of another, each with its workers: median, least and most of turns."""
    heads = max(1, repeats // 20)
    ratios = sorted(heads_per_s(call, heads, workers[0]) / heads_per_s(other, heads, workers[1]) for _ in range(ROUNDS))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _latency_rows(table: Rows, seconds: list[list[float]]) -> None:
    alone, over = seconds
    ratios = [b / a for a, b in zip(alone, over, strict=True)]
    added_ms = [(b - a) * 1000 for a, b in zip(alone, over, strict=True)]
    table.add_row("in process, median", f"{statistics.median(alone) * 1000:.0f} ms", "")
    table.add_row("over loopback, median", f"{statistics.median(over) * 1000:.0f} ms", "")
    table.add_row("over loopback / in process, pairs", _quartiles(ratios, ".3f"), f"{GOALS['latency']}")
    table.add_row("added, pairs", f"{_quartiles(added_ms, '.0f')} ms", f"{GOALS['added_ms']:.0f} ms")


def _quartiles(values: list[float], form: str) -> str:
    lower, middle, upper = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({lower:{form}} to {upper:{form}})"


def _server_rows(table: Rows, server: Server) -> None:
    """Show what the server's own metrics say of a Predict: means, the first and slowest one among them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{METRICS_PATH}", timeout=60) as answer:
        page = answer.read().decode()
    for name, what in (("runtime", "the session's run"), ("request", "the whole request")):
        found = [re.search(rf"^:tensorflow:serving:{name}_latency_{end}{{.*}} (\S+)$", page, re.M) for end in ENDS]
        total_us, count = (float(each[1]) for each in found if each is not None)
        table.add_row(f"in the server, mean: {what}", f"{total_us / count / 1000:.0f} ms", "")


def _throughput_rows(
    table: Rows, alone: Callable[[], Any], over: Callable[[], Any], repeats: int, workers: int
) -> None:
    ratio = throughput_ratio(over, alone, repeats, (workers, workers))
    table.add_row(f"throughput of {workers} workers / in process", ratio, f"{GOALS['throughput']}")


def _import_s() -> float:
    """Give the seconds that a Python with TensorFlow takes to start, once its files are in the kernel's memory."""
    command = [sys.executable, "-c", "import tensorflow"]

    def start() -> None:
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    start()
    return took_s(start)


def _head(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)


def _runtime_rows(table: Rows, compared: list[Compared]) -> None:
    if not compared:
        table.add_row("in process / other runtimes", "did not run: `make bench-endpoint` installs them", "")
    for each in compared:
        what = f"in process / {each.runtime}, the same network"
        times = f"({statistics.median(each.ours_s) * 1000:.0f} / {statistics.median(each.theirs_s) * 1000:.0f} ms)"
        table.add_row(what, f"{each.ratio:.2f} {times}", f"{GOALS['runtime']}")
        table.add_row("largest difference of a probability", f"{each.largest_difference:.1e}", "")


if __name__ == "__main__":
    bench()
