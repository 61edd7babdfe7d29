"""Training: slabs a second with one and with two processes, and a step beside the same network in PyTorch.

Run: make bench-training, or python -m benchmarks.training [--steps 12] [--turns 3] [--torch PYTHON]

The recipe is that of `training/ich_unet.toml`. For the first part each process is pinned to one core and reads
phantoms from shards; two processes share the global batch through MultiWorkerMirroredStrategy. For the second part
TensorFlow and PyTorch take turns on the same cores, each with one batch that stays in memory: the network, loss and
optimiser of `benchmarks/torch_step.py` are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training.settings import RunSettings, read_settings

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "training" / "ich_unet.toml"
STEPS_BEFORE = 3  # tracing, and the first use of each kernel


def main() -> int:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12, help="steps measured in each process")
    parser.add_argument("--torch", type=Path, default=ROOT / "build" / "bench-venv" / "bin" / "python",
                        help="a Python that has PyTorch")  # fmt: skip
    parser.add_argument("--xla", action="store_true", help="measure XLA too, which takes minutes to compile the step")
    parser.add_argument("--turns", type=int, default=3, help="of TensorFlow and PyTorch")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(_part(given.part, given.folder, given.steps)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _prepare(folder)
        _print_scaling(folder, given.steps)
        _print_beside_torch(folder, given.steps, given.turns, given.torch, xla=given.xla)
    return 0


def _settings(folder: Path, steps: int, strategy: str = "one", *, xla: bool = False) -> RunSettings:
    recipe = read_settings(RECIPE).model_dump()
    source = {"kind": "phantom", "count": 12, "size": 192}
    steps += STEPS_BEFORE
    changed: dict[str, Any] = {
        "folder": folder / "run", "shards": folder / "shards", "source": [source], "validation": [], "test": [],
        "warm_start": None, "strategy": strategy, "xla": xla, "threads": 0, "steps_per_round": steps,
        "optimiser": {**recipe["optimiser"], "steps": steps, "warmup_steps": 1},
    }  # fmt: skip
    return RunSettings.model_validate({**recipe, **changed})


def _prepare(folder: Path) -> None:
    from training.run import convert_sources

    settings = _settings(folder, 1)
    convert_sources(settings, settings.source, lambda _: None)


def _print_scaling(folder: Path, steps: int) -> None:
    batch = _settings(folder, steps).optimiser.batch
    [one] = _together([_command("one", folder, steps)], [{0}])
    print(f"1 process on 1 core: {batch / one['step_s']:.1f} slabs/s", flush=True)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("2 processes: this machine has one core")
        return
    ports = _free_ports(2)
    clusters = [{"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    found = _together(
        [_command("multi_worker", folder, steps)] * 2, [{core} for core in cores], [json.dumps(c) for c in clusters]
    )
    two = max(each["step_s"] for each in found)
    print(f"2 processes on 1 core each: {batch / two:.1f} slabs/s, {one['step_s'] / two:.2f} x", flush=True)


def _print_beside_torch(folder: Path, steps: int, turns: int, torch: Path, *, xla: bool) -> None:
    settings = _settings(folder, steps)
    shape = {"widths": settings.network.widths, "windows": settings.network.windows_hu, "crop": settings.optimiser.crop,
             "batch": settings.optimiser.batch, "steps": steps, "before": STEPS_BEFORE,
             "channels": 2 * settings.network.context + 1}  # fmt: skip
    commands = {"TensorFlow": _command("tensorflow", folder, steps)}
    if xla:
        commands["TensorFlow, XLA"] = _command("xla", folder, steps)
    if torch.exists():
        script = [str(torch), "-m", "benchmarks.torch_step", json.dumps(shape)]
        commands |= {"PyTorch": script, "PyTorch, channels last": [*script, "--channels-last"]}
    cores = os.sched_getaffinity(0)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(turns):
        for name, command in commands.items():
            times[name].append(_together([command], [cores])[0]["step_s"])
    for name, found in times.items():
        print(f"{name}: {statistics.median(found) * 1000:.0f} ms a step of {settings.optimiser.batch} slabs on "
              f"{len(cores)} cores (turns: {', '.join(f'{each * 1000:.0f}' for each in found)})")  # fmt: skip
    if not torch.exists():
        print(f"PyTorch: not measured, there is no {torch}")


def _command(part: str, folder: Path, steps: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.training", "--part", part, "--folder", str(folder), "--steps", str(steps)]


def _together(
    commands: list[list[str]], cores: list[set[int]], tf_configs: list[str] | None = None
) -> list[dict[str, float]]:
    """Run commands at once, each on its cores; what each prints last."""
    processes = []
    for place, (command, own) in enumerate(zip(commands, cores, strict=True)):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if tf_configs:
            environment["TF_CONFIG"] = tf_configs[place]
        pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(own))), *command]
        processes.append(subprocess.Popen(pinned, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    found = []
    for process in processes:
        printed, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(commands[0])} failed")
        found.append(json.loads(printed.strip().splitlines()[-1]))
    return found


def _free_ports(count: int) -> list[str]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in opened]
    for each in opened:
        each.close()
    return addresses


def _part(part: str, folder: Path, steps: int) -> dict[str, float]:
    from training.clusters import strategy_of
    from training.run import convert_sources
    from training.trainer import Trainer

    strategy = part if part in {"one", "multi_worker"} else "one"
    settings = _settings(folder, steps, strategy, xla=part == "xla")
    joined = strategy_of(strategy)
    trainer = Trainer(settings, convert_sources(settings, settings.source, lambda _: None), joined)
    batches = trainer.batches(0, 0)
    kept = next(batches)
    times = []
    for _ in range(steps + STEPS_BEFORE):
        started = time.perf_counter()
        batch = next(batches) if part in {"one", "multi_worker"} else kept
        trainer.take_step(batch, asked_to_stop=False)
        times.append(time.perf_counter() - started)
    return {"step_s": statistics.median(times[STEPS_BEFORE:])}


if __name__ == "__main__":
    sys.exit(main())
