"""The measurement on a GPU: where there is none it says so, and what overlaps on a GPU counts once."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

tf = pytest.importorskip("tensorflow")

from benchmarks.endpoint_gpu import bench, busy_s  # noqa: E402


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
