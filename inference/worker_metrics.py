"""What a worker counts, as Prometheus reads it, and the state of its endpoints. Never anything of a patient."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference.circuit import CircuitState

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


class Calls(Protocol):
    """What is seen of the endpoints; the client has it."""

    @property
    def circuits(self) -> dict[str, CircuitState]:
        """Whether requests go to each endpoint."""
        ...

    @property
    def calls(self) -> dict[tuple[str, str], int]:
        """How many calls ended how, by endpoint and code."""
        ...


@dataclass(frozen=True)
class NoCalls:
    """No endpoint is looked at."""

    circuits: dict[str, CircuitState] = field(default_factory=dict)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)


class WorkerMetrics:
    """Counters of one worker; may be used by several threads at once.

    Args:
        calls: what is seen of the endpoints; None: nothing.
    """

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls: Calls = calls or NoCalls()
        self._lock = threading.Lock()
        self._studies: Counter[str] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._model_available = False

    def study_ended(self, outcome: str, seconds: Mapping[str, float]) -> None:
        """Count a study.

        Args:
            outcome: "analysed", "not_analysed", "failed", or "waits" where the model is away.
            seconds: what each step of it took.
        """
        with self._lock:
            self._studies[outcome] += 1
            for step, took_s in seconds.items():
                self._seconds[step] += took_s

    def model_seen(self, *, available: bool) -> None:
        """Note whether the model answered when it was last asked."""
        self._model_available = available

    def state(self) -> dict[str, Any]:
        """Give whether the model answered, and the circuit of each endpoint, as JSON has it."""
        circuits = {endpoint: state.value for endpoint, state in self._calls.circuits.items()}
        return {"model_available": self._model_available, "circuits": circuits}

    @property
    def ready(self) -> bool:
        """Whether studies are read: the model answered when it was last asked."""
        return self._model_available

    def exposition(self) -> str:
        """Give all of it in Prometheus' text format 0.0.4."""
        with self._lock:
            studies, seconds = dict(self._studies), dict(self._seconds)
        lines = [
            *_lines("ich_worker_studies_total", "counter", "studies by outcome", _by("outcome", studies)),
            *_lines("ich_worker_step_seconds_total", "counter", "seconds spent, by step", _by("step", seconds)),
            *_lines("ich_worker_model_available", "gauge", "1: the model answered", [({}, self._model_available)]),
            *_lines("ich_worker_calls_total", "counter", "calls by endpoint and code", self._call_samples()),
            *_lines(
                "ich_worker_circuit_state", "gauge", "1: the state of an endpoint's circuit", self._circuit_samples()
            ),
        ]
        return "\n".join(lines) + "\n"

    def _call_samples(self) -> Iterator[Sample]:
        for (endpoint, code), count in sorted(self._calls.calls.items()):
            yield {"endpoint": endpoint, "code": code}, count

    def _circuit_samples(self) -> Iterator[Sample]:
        for endpoint, state in self._calls.circuits.items():
            for each in CircuitState:
                yield {"endpoint": endpoint, "state": each.value}, each is state


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [({label: key}, value) for key, value in sorted(values.items())]


def _lines(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels.items())
        yield f"{name}{{{pairs}}} {float(value):.15g}" if pairs else f"{name} {float(value):.15g}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
