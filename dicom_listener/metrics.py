"""What the listener counts, as Prometheus reads it (text exposition format 0.0.4). Never anything of a patient."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

# seconds from the last byte of an image to its answer; 25 ms is the goal at one association
LATENCY_BOUNDS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

Labels = tuple[tuple[str, str], ...]


@dataclass
class _Counter:
    help: str
    values: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))


class Metrics:
    """Counters of one listener, and gauges that are asked when somebody looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters = {
            "ich_listener_instances_total": _Counter("C-STORE requests by status"),
            "ich_listener_bytes_total": _Counter("bytes of data sets kept"),
            "ich_listener_associations_total": _Counter("associations accepted"),
            "ich_listener_rejections_total": _Counter("associations rejected, by result/source/reason and cause"),
            "ich_listener_contexts_rejected_total": _Counter("presentation contexts offered in vain"),
            "ich_listener_aborts_total": _Counter("associations aborted by either side, or broken off"),
            "ich_listener_quarantine_refused_total": _Counter("objects not kept, as the quarantine was full"),
            "ich_listener_studies_complete_total": _Counter("studies queued, by the evidence"),
        }
        self._buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._seconds = 0.0
        self._gauges: dict[str, tuple[str, dict[Labels, Callable[[], float]]]] = {}

    def gauge(self, name: str, text: str, value: Callable[[], float], **labels: str) -> None:
        """Let a value be asked for."""
        _, values = self._gauges.setdefault(name, (text, {}))
        values[tuple(sorted(labels.items()))] = value

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name].values[tuple(sorted(labels.items()))] += by

    def stored(self, status: int, size_bytes: int, seconds: float) -> None:
        """Count one C-STORE and the time to its answer."""
        with self._lock:
            self._counters["ich_listener_instances_total"].values[("status", f"0x{status:04X}"),] += 1
            if status == 0:
                self._counters["ich_listener_bytes_total"].values[()] += size_bytes
            self._buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
            self._seconds += seconds

    def exposition(self) -> str:
        """Give all of it as text."""
        with self._lock:
            lines = [*self._counter_lines(), *self._latency_lines()]
        for name, (text, values) in self._gauges.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels_text(dict(labels))} {_asked(value):.15g}" for labels, value in values.items()]
        return "\n".join(lines) + "\n"

    def value(self, name: str, **labels: str) -> float:
        """Give a counter's value."""
        with self._lock:
            return self._counters[name].values.get(tuple(sorted(labels.items())), 0.0)

    def _counter_lines(self) -> Iterator[str]:
        for name, counter in self._counters.items():
            yield f"# HELP {name} {counter.help}"
            yield f"# TYPE {name} counter"
            for labels, value in sorted(counter.values.items()):
                yield f"{name}{_labels_text(dict(labels))} {value:.15g}"

    def _latency_lines(self) -> Iterator[str]:
        name = "ich_listener_store_seconds"
        yield f"# HELP {name} seconds from the last byte of an image to its answer"
        yield f"# TYPE {name} histogram"
        below = 0
        for bound, count in zip(LATENCY_BOUNDS_S, self._buckets, strict=False):
            below += count
            yield f'{name}_bucket{{le="{bound:g}"}} {below}'
        yield f'{name}_bucket{{le="+Inf"}} {sum(self._buckets)}'
        yield f"{name}_sum {self._seconds:.6f}"
        yield f"{name}_count {sum(self._buckets)}"


def _asked(value: Callable[[], float]) -> float:
    """Ask a gauge; not a number where a disk does not answer, as the other metrics are wanted then more than ever."""
    try:
        return value()
    except OSError:
        return math.nan


def _labels_text(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
