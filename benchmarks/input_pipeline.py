"""Training input: peak memory at 1, 5 and 20 times the data, and the share of a step's time spent waiting for it.

Run: python -m benchmarks.input_pipeline [--scans 12] [--steps 60]

Each size streams in a process of its own, whose peak resident memory is read when it ends: the batches of one round,
augmented as `training/ich_unet.toml` augments, from shards of phantoms of 32 slabs. The larger sets are the smallest
one's shards under further names, so that only their number differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training.settings import RunSettings, SourceSettings, read_settings

TIMES = (1, 5, 20)
RECIPE = Path(__file__).resolve().parents[1] / "training" / "ich_unet.toml"
STEPS_BEFORE = 5  # tracing and filling of the shuffle


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=12, help="phantoms of the smallest set")
    parser.add_argument("--steps", type=int, default=60, help="steps, or batches, measured")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(_part(given.part, given.folder, given.steps)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folders = _prepare(Path(temporary), given.scans)
        for times, folder in folders.items():
            found = _apart("stream", folder, given.steps)
            print(
                f"{times:3d} x ({times * given.scans} scans, {found['shard_mb']:.0f} MB of shards): peak "
                f"{found['peak_mb']:.0f} MB, {found['batches_per_s']:.1f} batches/s",
                flush=True,
            )
        found = _apart("train", folders[TIMES[0]], given.steps)
        print(f"{found['step_s'] * 1000:.0f} ms a step, {found['wait_share']:.2%} of it waiting for input")
    return 0


def _settings(folder: Path) -> RunSettings:
    recipe = read_settings(RECIPE)
    source = {"kind": "phantom", "count": 1, "size": 192}
    return RunSettings.model_validate(
        {**recipe.model_dump(), "folder": folder / "run", "shards": folder, "source": [source], "validation": [],
         "test": [], "threads": 0}
    )  # fmt: skip


def _prepare(folder: Path, scans: int) -> dict[int, Path]:
    from training.shards import SCANS_A_SHARD, convert, shard_files

    phantoms = _settings(folder).source[0].model_copy(update={"count": min(scans, SCANS_A_SHARD)})
    first = convert(phantoms, _settings(folder).grid, folder / "converted")
    folders = {}
    for times in TIMES:
        folders[times] = folder / f"x{times}"
        folders[times].mkdir()
        shutil.copy(first / "source.json", folders[times])
        for bleed in (True, False):
            for path in map(Path, shard_files(first, bleed=bleed)):
                for copy in range(times):
                    stem = path.name.partition("-")[0]
                    shutil.copyfile(path, folders[times] / f"{stem}-{copy:05d}.tfrecord")
    return folders


def _apart(part: str, folder: Path, steps: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.input_pipeline", "--part", part, "--folder", str(folder)]
    done = subprocess.run([*command, "--steps", str(steps)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _part(part: str, folder: Path, steps: int) -> dict[str, float]:
    settings = _settings(folder)
    converted = [(settings.source[0], folder)]
    return _stream(settings, converted, steps) if part == "stream" else _train(settings, converted, steps)


def _stream(settings: RunSettings, converted: list[tuple[SourceSettings, Path]], steps: int) -> dict[str, float]:
    from training.pipeline import training_batches

    batches = iter(training_batches(settings, converted, 0))
    for _ in range(STEPS_BEFORE):
        next(batches)
    started = time.perf_counter()
    for _ in range(steps):
        next(batches)
    took_s = time.perf_counter() - started
    shard_mb = sum(path.stat().st_size for path in converted[0][1].glob("*.tfrecord")) / 1e6
    return {"peak_mb": _peak_mb(), "batches_per_s": steps / took_s, "shard_mb": shard_mb}


def _peak_mb() -> float:
    """Give this process' own peak; getrusage's would be that of the process that started it, where larger."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM"))


def _train(settings: RunSettings, converted: list[tuple[SourceSettings, Path]], steps: int) -> dict[str, float]:
    from training.clusters import strategy_of
    from training.loop import StepReport
    from training.trainer import Trainer

    class Watch:
        def __init__(self) -> None:
            self.reports: list[StepReport] = []

        def step_done(self, report: StepReport) -> None:
            self.reports.append(report)

        def round_done(self, _trainer: Trainer) -> None:
            pass

    last = steps + STEPS_BEFORE
    optimiser = settings.optimiser.model_copy(update={"steps": last, "warmup_steps": 1})
    watch = Watch()
    trainer = Trainer(
        settings.model_copy(update={"optimiser": optimiser, "steps_per_round": last}), converted, strategy_of("one")
    )
    trainer.run(watch)
    measured = watch.reports[STEPS_BEFORE:]
    total_s = sum(report.seconds for report in measured)
    return {"step_s": total_s / len(measured), "wait_share": sum(report.input_wait_s for report in measured) / total_s}


if __name__ == "__main__":
    sys.exit(main())
