"""The shipped network on a GPU: slabs and heads a second, the share of the time the GPU works, agreement with a CPU.

`python -m benchmarks.endpoint_gpu`. Where TensorFlow sees no GPU it says that it did not run. Without other requests,
in process: what the endpoint adds is measured by `benchmarks.endpoint`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from inference.memory import keep_large_blocks
from training.phantom import make_phantom, plan_bleeds
from triage.volume import with_context

HEAD_SLABS = 32
BATCHES = (32, 256)
BLEED_ML = (40.0, 80.0)
STREAMS = "/stream:all"  # the device under which TensorFlow's tracer lists what ran on a GPU, kernels and copies

console = Console()


@click.command(epilog="Example: python -m benchmarks.endpoint_gpu --models models")
@click.option("--models", type=click.Path(path_type=Path, exists=True), default=Path("models"), show_default=True)
@click.option("--model", "model_name", default="ich_unet", show_default=True, help="Name of the model.")
@click.option("--repeats", default=30, show_default=True, help="Runs of each batch size.")
@click.option("--probabilities", type=click.Path(path_type=Path), hidden=True)
def bench(models: Path, model_name: str, repeats: int, probabilities: Path | None) -> None:
    """Measure the newest version of a model on the first GPU."""
    import tensorflow as tf

    if probabilities is not None:
        np.save(probabilities, head_probabilities(models / model_name))
        return
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        console.print("On a GPU: did not run, TensorFlow sees none.")
        return
    keep_large_blocks()
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    table = Table("slabs a run", "slabs/s", "heads/s", "GPU at work", title=f"{model_name} on one {name}")
    session, feed, fetch, slab = _session(models / model_name)
    for slabs in BATCHES:
        hu = _slabs(slabs, slab)
        run_s = _run_s(lambda hu=hu: session.run(fetch, {feed: hu}), repeats)
        share = _share_at_work(session, feed, fetch, hu)
        table.add_row(
            f"{slabs}", f"{slabs / run_s:.0f}", f"{slabs / run_s / HEAD_SLABS:.1f}", f"{share:.0%} of a traced run"
        )
    console.print(table)
    console.print(f"Largest difference of a probability to a CPU's: {largest_difference(models, model_name):.1e}")


def largest_difference(models: Path, model_name: str) -> float:
    """Give how far the probabilities of a head here are from those of a process that sees no GPU."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "probabilities.npy"
        options = ["--models", str(models), "--model", model_name, "--probabilities", str(file)]
        subprocess.run(
            [sys.executable, "-m", "benchmarks.endpoint_gpu", *options],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        elsewhere = np.load(file)
    return float(np.abs(head_probabilities(models / model_name) - elsewhere).max())


def head_probabilities(base: Path) -> np.ndarray[Any, Any]:
    """Give the probabilities (N, Y, X) that the newest version finds in the slabs of a bleeding phantom."""
    session, feed, fetch, slab = _session(base)
    found: np.ndarray[Any, Any] = session.run(fetch, {feed: _slabs(HEAD_SLABS, slab)})
    return found


def _slabs(count: int, slab: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Give HU (N, Y, X, C) of bleeding phantoms, each slice between its neighbours."""
    rows, _, channels = slab
    heads = []
    for seed in range(-(-count // HEAD_SLABS)):
        bleeds = plan_bleeds(np.random.default_rng(seed), BLEED_ML)
        hu = make_phantom(seed, bleeds, slices=HEAD_SLABS, size=rows).volume.hu
        heads.append(with_context(hu.astype(np.int16), channels // 2))
    return np.concatenate(heads)[:count]


def _session(base: Path) -> tuple[Any, str, str, tuple[int, ...]]:
    """Load the newest version; gives the session, tensor names, and rows, columns and channels of a slab."""
    from inference.model_server.model_versions import versions_on_disk
    from inference.model_server.servable import SessionThreads, load_servable

    found = versions_on_disk(base)
    servable = load_servable(found[max(found)], SessionThreads())
    signature = servable.signature("serving_default")
    assert signature is not None
    hu = signature.inputs["hu"]
    sizes = tuple(axis.size for axis in hu.tensor_shape.dim)[1:]
    return servable._session, hu.name, signature.outputs["probability"].name, sizes


def _run_s(call: Any, repeats: int) -> float:
    """Give the median seconds of a call, after three to warm up."""
    times = []
    for repeat in range(repeats + 3):
        started_s = time.perf_counter()
        call()
        if repeat >= 3:
            times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def _share_at_work(session: Any, feed: str, fetch: str, hu: np.ndarray[Any, Any]) -> float:
    """Give the share of one traced run in which at least one kernel or copy is on the GPU."""
    import tensorflow as tf

    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    for _ in range(2):  # the first trace loads the tracer
        metadata = tf.compat.v1.RunMetadata()
        started_s = time.perf_counter()
        session.run(fetch, {feed: hu}, options=options, run_metadata=metadata)
        took_s = time.perf_counter() - started_s
    return busy_s(metadata.step_stats) / took_s


def busy_s(step_stats: Any) -> float:
    """Give the seconds in which something runs on a GPU: overlapping kernels and copies count once."""
    spans = [
        (node.all_start_micros + node.op_start_rel_micros, node.all_start_micros + node.op_end_rel_micros)
        for device in step_stats.dev_stats
        if device.device.endswith(STREAMS)
        for node in device.node_stats
    ]
    return _covered(spans) / 1e6


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Give the length that the spans cover together."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


if __name__ == "__main__":
    bench()
