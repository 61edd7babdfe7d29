"""Counters and histograms under TF Serving's names, as Prometheus reads them.

Reference:
    tensorflow_serving/util/prometheus_exporter.cc, servables/tensorflow/util.cc.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from inference.model_server.statuses import StatusError

LATENCY_LIMITS_US = tuple(10 * 1.8**power for power in range(33))  # about 20 minutes at the top
EXAMPLE_LIMITS = tuple(float(2**power) for power in range(15))

Labels = tuple[tuple[str, str], ...]


@dataclass
class _Histogram:
    limits: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def add(self, value: float) -> None:
        self.counts = self.counts or [0] * (len(self.limits) + 1)
        self.counts[bisect_left(self.limits, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        before = f"{labels}," if labels else ""
        cumulative = 0
        for limit, count in zip([*(f"{limit:g}" for limit in self.limits), "+Inf"], self.counts, strict=True):
            cumulative += count
            yield f'{name}_bucket{{{before}le="{limit}"}} {cumulative}'
        yield f"{name}_sum{{{labels}}} {self.total:g}"
        yield f"{name}_count{{{labels}}} {cumulative}"


class Metrics:
    """The server's metrics; may be used by several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, int]] = defaultdict(lambda: defaultdict(int))
        self._histograms: dict[str, dict[Labels, _Histogram]] = defaultdict(dict)

    @contextmanager
    def request(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count a request by its status, and its latency where it succeeds.

        Args:
            model: name as asked for.
            api: "Predict", "Classify" or "Regress".
            entrypoint: "GRPC" or "REST".
        """
        started_s = time.perf_counter()
        try:
            yield
        except StatusError as error:
            self.count(":tensorflow:serving:request_count", model_name=model, status=error.code.name)
            raise
        self.count(":tensorflow:serving:request_count", model_name=model, status="OK")
        labels = {"model_name": model, "API": api, "entrypoint": entrypoint}
        self.latency(":tensorflow:serving:request_latency", time.perf_counter() - started_s, **labels)

    @contextmanager
    def runtime(self, model: str, api: str) -> Iterator[None]:
        """Take the time of one successful run of the graph."""
        started_s = time.perf_counter()
        yield
        labels = {"model_name": model, "API": api, "runtime": "TF1"}
        self.latency(":tensorflow:serving:runtime_latency", time.perf_counter() - started_s, **labels)

    @contextmanager
    def loading(self, path: Path) -> Iterator[None]:
        """Count a try to load a SavedModel by how it ends, and its time in microseconds."""
        started_s = time.perf_counter()
        status = "fail"
        try:
            yield
            status = "success"
        finally:
            name, took_s = ":tensorflow:cc:saved_model:load", time.perf_counter() - started_s
            self.count(f"{name}_attempt_count", model_path=str(path), status=status)
            self.count(f"{name}_latency", int(took_s * 1e6), model_path=str(path))

    def examples(self, model: str, count: int) -> None:
        """Count the examples of one Classify, Regress or MultiInference."""
        self._observe(":tensorflow:serving:request_example_counts", EXAMPLE_LIMITS, count, {"model": model})
        self.count(":tensorflow:serving:request_example_count_total", count, model=model)

    def batch_size(self, name: str, rows: int) -> None:
        """Count a batch by its size: "input_batch_size" of a request, "processed_batch_size" of a run."""
        self._observe(f":tensorflow:serving:batching_session:{name}", EXAMPLE_LIMITS[:14], rows, {})

    def count(self, name: str, step: int = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name][tuple(labels.items())] += step

    def latency(self, name: str, seconds: float, **labels: str) -> None:
        """Add a duration to a histogram in microseconds."""
        self._observe(name, LATENCY_LIMITS_US, seconds * 1e6, labels)

    def value(self, name: str) -> int:
        """Give the sum of a counter over all its labels; 0 for an unknown one."""
        with self._lock:
            return sum(self._counters[name].values()) if name in self._counters else 0

    def page(self) -> str:
        """Give all metrics in Prometheus' text format."""
        lines: list[str] = []
        with self._lock:
            for name, counters in sorted(self._counters.items()):
                lines.append(f"# TYPE {name} counter")
                lines += [f"{name}{{{_written(labels)}}} {value}" for labels, value in counters.items()]
            for name, histograms in sorted(self._histograms.items()):
                lines.append(f"# TYPE {name} histogram")
                for labels, histogram in histograms.items():
                    lines += histogram.lines(name, _written(labels))
        return "\n".join(lines) + "\n"

    def _observe(self, name: str, limits: tuple[float, ...], value: float, labels: dict[str, str]) -> None:
        with self._lock:
            self._histograms[name].setdefault(tuple(labels.items()), _Histogram(limits)).add(value)


def _written(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return ",".join(f'{name}="{value}"' for name, value in escaped)
