"""The shipped network's own time beside OpenVINO and ONNX Runtime, one head in turns.

`make bench-endpoint` makes the environment in which the other runtimes live; without it this says that it did not run.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Median, in_turns, median, took_s

ENVIRONMENT = Path("build/bench-venv-runtimes")
RUNTIMES = ("openvino", "onnxruntime")

HeadCall = Callable[[], Any]


@dataclass(frozen=True)
class Compared:
    """One other runtime against TensorFlow.

    Attributes:
        runtime: name and version.
        ours_s: seconds of a head by TensorFlow, a value a turn.
        theirs_s: by the other runtime, in the same turns.
        largest_difference: of a probability.
    """

    runtime: str
    ours_s: list[float]
    theirs_s: list[float]
    largest_difference: float

    @property
    def ratio(self) -> Median:
        """Our time over theirs, by turns."""
        return median([ours / theirs for ours, theirs in zip(self.ours_s, self.theirs_s, strict=True)])


class OtherRuntime:
    """A running process of `benchmarks.other_runtime`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        ready = json.loads(self._read())
        self.name = f"{ready['runtime']} {ready['version'].partition('-')[0]}"

    def run_s(self) -> float:
        """Run once; gives the seconds of it."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def compare(version: Path, alone: HeadCall, hu: np.ndarray[Any, Any], repeats: int) -> list[Compared]:
    """Time one head by TensorFlow and by each other runtime in turns; none where their environment is missing.

    Args:
        version: folder of the SavedModel.
        alone: one head by TensorFlow in this process; gives its maps in a list.
        hu: (N, Y, X, C) int16.
        repeats: turns.
    """
    if not (ENVIRONMENT / "bin" / "python").exists():
        return []
    with tempfile.TemporaryDirectory(prefix="ich-triage-bench-") as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in RUNTIMES}
        np.save(Path(folder) / "hu.npy", hu)
        with ExitStack() as stack:
            others = [
                stack.enter_context(started(name, version, Path(folder) / "hu.npy", files[name])) for name in RUNTIMES
            ]
            seconds = in_turns([lambda: took_s(alone), *[other.run_s for other in others]], repeats)
        [maps] = alone()
        differences = [float(np.abs(np.load(files[name]) - maps).max()) for name in RUNTIMES]
    ours_s, *theirs = seconds
    return [
        Compared(other.name, ours_s, theirs_s, difference)
        for other, theirs_s, difference in zip(others, theirs, differences, strict=True)
    ]


@contextmanager
def started(name: str, version: Path, hu_file: Path, maps_file: Path) -> Iterator[OtherRuntime]:
    """Run the other runtime's process."""
    script = Path(__file__).with_name("other_runtime.py")
    command = [ENVIRONMENT / "bin" / "python", script, name, version, hu_file, maps_file]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(word) for word in command], text=True, **pipes) as process:
        yield OtherRuntime(process)
        process.communicate(timeout=60)  # no more lines: it writes its maps and ends
