"""`make bench-endpoint`: what the endpoint adds to the model, on this machine.

The shipped model is called in this process and through the embedded server over loopback, in turns and in either
order, so that both see the same load of the machine; then by several workers at once, without and with batching.
Figures are medians of pairs of neighbouring calls, in brackets the 95 % interval of the median: a single head takes
from 0.9 to 1.3 s where the host is shared, so fewer than some hundred pairs say little about 20 ms. What the session's
run takes inside the server is read from its own metrics after each call, so that what is around it stands apart; the
same tensors through a small network show what the endpoint adds without the noise of a long run.
`benchmarks.endpoint_runtimes` compares with OpenVINO and ONNX Runtime, `benchmarks.endpoint_gpu` has the GPU.
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
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from benchmarks.endpoint_runtimes import Compared, compare
from benchmarks.small_network import small_network
from benchmarks.turns import in_turns, median, took_s
from inference.memory import keep_large_blocks
from inference.serving_client import ServingClient

HEAD_SLABS = 32  # 160 mm of head at 5 mm
BATCHING = Path(__file__).parents[1] / "docker" / "batching.config"
HEADS_A_WORKER = 2  # of one round of throughput
PARTS = ("start", "latency", "throughput", "batching", "runtimes")
GOALS = {"latency": 1.05, "added_ms": 25.0, "throughput": 0.95, "start_s": 5.0, "runtime": 1.15}
METRICS_PATH = "/monitoring/prometheus/metrics"
RUN_US = re.compile(r"^:tensorflow:serving:runtime_latency_sum{.*} (\S+)$", re.M)
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
@click.option("--repeats", default=120, show_default=True, help="Pairs of heads, one after the other.")
@click.option("--rounds", default=12, show_default=True, help="Pairs of rounds of throughput.")
@click.option("--workers", default=4, show_default=True, help="Workers that ask at once.")
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="What is measured. [default: all]")
def bench(models: Path, model_name: str, repeats: int, rounds: int, workers: int, parts: tuple[str, ...]) -> None:
    """Measure latency and throughput of the endpoint against the same model in process."""
    keep_large_blocks()
    asked = parts or PARTS
    table = Rows(f"{HEAD_SLABS} slabs a head")
    if "start" in asked:
        _start_row(table, models)
    with running_server(models) as server, client_of(server, model_name) as client:
        spec, version = client.spec()
        hu = _head((HEAD_SLABS, spec.rows, spec.columns, 2 * spec.context + 1))
        alone = in_process(models / model_name / str(version), hu)
        over_loopback = lambda: client.predict(hu, spec=spec, version=version)  # noqa: E731
        if "latency" in asked:
            _latency_rows(table, server, alone, over_loopback, repeats)
        if "throughput" in asked:
            ratio = throughput_ratio((over_loopback, workers), (alone, workers), rounds)
            table.add_row(f"throughput of {workers} workers / in process", ratio, f"{GOALS['throughput']}")
    if "latency" in asked:
        with small_network(spec) as small, running_server(small) as server, client_of(server, spec.name) as client:
            _small_network_row(
                table,
                in_process(small / spec.name / "1", hu),
                lambda: client.predict(hu, spec=spec, version=1),
                repeats,
            )
    if "batching" in asked:
        with running_server(models, BATCHING) as server, client_of(server, model_name) as client:
            batched = lambda: client.predict(hu, spec=spec, version=version)  # noqa: E731
            ratio = throughput_ratio((batched, workers), (batched, 1), rounds)
            table.add_row(f"batching: {workers} workers / 1 worker", ratio, "1.0")
    if "runtimes" in asked:
        _runtime_rows(table, compare(models / model_name / str(version), alone, hu, max(3, repeats // 6)))


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


def heads_s(call: Callable[[], Any], workers: int, heads: int) -> float:
    """Give the seconds of some heads by workers that ask at once."""
    with ThreadPoolExecutor(workers) as pool:
        return took_s(lambda: list(pool.map(lambda _: call(), range(heads))))


def throughput_ratio(one: tuple[Callable[[], Any], int], other: tuple[Callable[[], Any], int], rounds: int) -> str:
    """Give the throughput of one call over that of another, each with its workers, both with the same heads."""
    heads = HEADS_A_WORKER * max(one[1], other[1])
    timed = [partial(heads_s, call, workers, heads) for call, workers in (one, other)]
    one_s, other_s = in_turns(timed, rounds)
    return median([theirs / ours for ours, theirs in zip(one_s, other_s, strict=True)]).text(".3f")


def _start_row(table: Rows, models: Path) -> None:
    import_s = _import_s()
    with running_server(models) as server:
        beyond = f"{server.started_s - import_s:.1f} s"
    table.add_row("start beyond TensorFlow's import", beyond, f"{GOALS['start_s']} s")


def _latency_rows(table: Rows, server: Server, alone: Callable[[], Any], over: Callable[[], Any], repeats: int) -> None:
    """Show what a Predict takes in process and over loopback, and how much of it is the run inside the server."""
    runs_s: list[float] = []

    def over_s() -> float:
        before_s = runs_in_server_s(server)
        call_s = took_s(over)
        runs_s.append(runs_in_server_s(server) - before_s)
        return call_s

    alone_s, loopback_s = in_turns([lambda: took_s(alone), over_s], repeats)
    pairs = list(zip(alone_s, loopback_s, runs_s[1:], strict=True))  # the first turn warmed up
    added = median([(call_s - base_s) * 1000 for base_s, call_s, _ in pairs])
    around = median([(call_s - run_s) * 1000 for _, call_s, run_s in pairs])
    table.add_row(f"pairs: {len(pairs)}; in process", f"{statistics.median(alone_s) * 1000:.0f} ms", "")
    table.add_row("over loopback", f"{statistics.median(loopback_s) * 1000:.0f} ms", "")
    ratio = median([call_s / base_s for base_s, call_s, _ in pairs])
    table.add_row("over loopback / in process", ratio.text(".3f"), f"{GOALS['latency']}")
    table.add_row("added", f"{added.text('.0f')} ms", f"{GOALS['added_ms']:.0f} ms")
    table.add_row("around the run in the server", f"{around.text('.1f')} ms", "")
    runs = median([run_s / base_s for base_s, _, run_s in pairs])
    table.add_row("the run in the server / in process", runs.text(".3f"), "")


def _small_network_row(table: Rows, alone: Callable[[], Any], over: Callable[[], Any], repeats: int) -> None:
    """Show what the endpoint adds to a run that takes so little that its own scatter does not matter."""
    alone_s, loopback_s = in_turns([lambda: took_s(alone), lambda: took_s(over)], repeats)
    added = median([(call_s - base_s) * 1000 for base_s, call_s in zip(alone_s, loopback_s, strict=True)])
    table.add_row(
        "the same tensors through a small network: added", f"{added.text('.0f')} ms", f"{GOALS['added_ms']:.0f} ms"
    )


def runs_in_server_s(server: Server) -> float:
    """Give the seconds of all runs of a session so far, by the server's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{METRICS_PATH}", timeout=60) as answer:
        return sum(float(total_us) for total_us in RUN_US.findall(answer.read().decode())) / 1e6


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
        times = f"{statistics.median(each.ours_s) * 1000:.0f} / {statistics.median(each.theirs_s) * 1000:.0f} ms"
        table.add_row(what, f"{each.ratio.text('.2f')}, {times}", f"{GOALS['runtime']}")
        table.add_row("largest difference of a probability", f"{each.largest_difference:.1e}", "")


if __name__ == "__main__":
    bench()
