"""Another runtime on the network of a SavedModel, as a process of its own: OpenVINO or ONNX Runtime.

It runs in an environment that has these runtimes and nothing of the product, and talks by lines: when it is ready it
says so in JSON, then answers each line of its input with the seconds of one run. At the end it writes what the last run
gave. `benchmarks.endpoint_runtimes` starts it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OPSET = "18"
Run = Callable[[], Any]


def openvino_run(model: Path, hu: np.ndarray[Any, Any]) -> Run:
    """Give a run by OpenVINO, which reads the SavedModel itself; threads and streams are its own choice for latency."""
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(model)), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return lambda: next(iter(compiled([hu]).values()))


def onnxruntime_run(model: Path, hu: np.ndarray[Any, Any]) -> Run:
    """Give a run by ONNX Runtime on the SavedModel as tf2onnx converts it, with all optimisations and all cores."""
    onnxruntime = importlib.import_module("onnxruntime")
    with tempfile.TemporaryDirectory(prefix="ich-triage-onnx-") as folder:
        file = Path(folder) / "model.onnx"
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model), "--output", str(file)]
        command += ["--opset", OPSET, "--signature_def", "serving_default"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: hu})[0]


RUNTIMES = {"openvino": openvino_run, "onnxruntime": onnxruntime_run}


def main(name: str, model: Path, hu_file: Path, maps_file: Path) -> None:
    """Answer lines until there are no more."""
    run = RUNTIMES[name](model, np.load(hu_file))
    maps = run()
    print(json.dumps({"runtime": name, "version": importlib.import_module(name).__version__}), flush=True)
    for _ in sys.stdin:
        started_s = time.perf_counter()
        maps = run()
        print(time.perf_counter() - started_s, flush=True)
    np.save(maps_file, maps)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
