"""What TensorBoard gets of a run, and the debugger's dump in which the first NaN is found."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.python.debug.lib.debug_events_monitors import InfNanMonitor
from tensorflow.python.debug.lib.debug_events_reader import DebugDataReader

from tests.training.small_runs import network, phantoms
from training.labelled_scan import LabelledSlabs
from training.loop import StepReport
from training.observers import TerminalProgress
from training.validation import VoxelCurve, WorstSlabs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def events(validated_run):
    found = EventAccumulator(str(validated_run.folder / "board"), size_guidance={"tensors": 0})
    found.Reload()
    return found


@pytest.mark.slow
def test_board_has_scalars_histograms_pictures_curves_and_the_graph(events):
    tags = set(events.Tags()["tensors"])

    assert {"loss/total", "loss/cross_entropy", "loss/dice", "dice", "learning_rate"} <= tags
    assert {"speed/input_wait_share", "speed/slabs_per_s"} <= tags
    assert {"weights/stem_conv/kernel", "gradients/stem_conv/kernel", "probability/voxels"} <= tags
    assert {"validation/phantom/study_auc", "validation/voxels/pr_curves"} <= tags
    assert len([tag for tag in tags if tag.startswith("worst slabs/")]) == 10
    assert events.Tags()["graph"]


@pytest.mark.slow
def test_few_steps_are_traced_for_the_profiler(validated_run):
    [trace] = (validated_run.folder / "board" / "plugins" / "profile").glob("*/*.xplane.pb")

    assert trace.stat().st_size > 1000


def test_precision_recall_counts_voxels_at_each_line():
    curve = VoxelCurve()

    curve.add(np.array([0.9, 0.6, 0.6, 0.1], np.float32), np.array([True, True, False, False]))

    true_positive, false_positive, true_negative, false_negative = (counts[50] for counts in curve.counts())  # 0.5
    assert (true_positive, false_positive, true_negative, false_negative) == (2, 1, 1, 0)


def test_worst_slabs_come_first_and_only_so_many():
    hu, blood = np.zeros((4, 8, 8), np.int16), np.zeros((4, 8, 8), np.uint8)
    probability = np.zeros((4, 8, 8), np.float32)
    for slab, wrong in enumerate((3, 0, 7, 5)):
        probability[slab].flat[:wrong] = 0.9
    worst = WorstSlabs(kept=2)

    worst.add(LabelledSlabs(hu, blood, (), "1", "s", -1, 0.1, (5.0, 1.0, 1.0)), probability, blood > 0)

    pictures = worst.pictures()
    assert [int((picture[:, 16:] > 200).sum()) for picture in pictures] == [7, 5]
    assert pictures[0].shape == (8, 24)


def report(step):
    return StepReport(step, 0.5, 0.2, 0.3, 1e-3, 1.0, 0.1)


def test_terminal_shows_a_bar_with_the_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = TerminalProgress(100, 0, console)

    progress.step_done(report(40))
    progress.bar.refresh()
    progress.ended("stopped")

    assert "40/100" in console.file.getvalue()
    assert "left" in console.file.getvalue()


def test_plain_lines_elsewhere(capsys):
    progress = TerminalProgress(100, 0, Console(file=io.StringIO()))

    for step in range(1, 101):
        progress.step_done(report(step))

    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["50/100", "100/100"]
    assert lines[0].endswith("min left")


@pytest.mark.slow
def test_debugger_finds_a_planted_nan(tmp_path, shards):
    config = tmp_path / "run.toml"
    top = f'folder = "{tmp_path}/run"\nshards = "{shards}"\n'
    ends_in_no_number = network(widths=(4,), steps=4, batch=2, warmup_steps=0, learning_rate=1e30)
    config.write_text(top + ends_in_no_number + phantoms())
    command = [sys.executable, "-m", "ich_triage", "train", str(config), "--debugger"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 1
    assert "Error: The loss of step 2 is nan" in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    with DebugDataReader(str(tmp_path / "run" / "board" / "debugger")) as reader:
        monitor = InfNanMonitor(reader)
        reader.update()
        alerts = monitor.alerts()
    assert any(alert.num_nan for alert in alerts)
    assert alerts[0].op_type
