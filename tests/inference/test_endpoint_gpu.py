"""The model on a GPU: it computes as on a CPU; the measurement says where there is none, and counts overlaps once."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

tf = pytest.importorskip("tensorflow")

from benchmarks.endpoint_gpu import bench, busy_s, head_probabilities, largest_difference  # noqa: E402

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_head_reads_the_same_on_a_cpu():
    """On a machine with a GPU this compares the two; on others, two processes."""
    probability = head_probabilities(MODELS / "ich_unet")

    assert probability.shape[0] == 32
    assert probability.max() > 0.9  # it bleeds
    assert largest_difference(MODELS, "ich_unet") < 1e-4  # with TensorFloat-32 0.0016 were seen
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_without_a_gpu_it_says_that_it_did_not_run():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")

    result = CliRunner().invoke(bench)

    assert (result.exit_code, result.output) == (0, "On a GPU: did not run, TensorFlow sees none.\n")


def test_kernels_and_copies_that_overlap_count_once():
    stats = tf.compat.v1.RunMetadata().step_stats
    for name in ("/device:GPU:0/stream:all", "/job:localhost/replica:0/task:0/device:CPU:0"):
        device = stats.dev_stats.add(device=name)
        for start, end in ((0, 400), (300, 600), (1000, 1500)):
            device.node_stats.add(all_start_micros=5000 + start, op_end_rel_micros=end - start)

    assert busy_s(stats) == pytest.approx(0.0011)  # 600 and 500 microseconds, of the GPU alone
