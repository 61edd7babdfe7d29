"""A circuit breaker: an endpoint that does not answer is left alone for a while, then tried with a single request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum

import structlog

log = structlog.get_logger()

FAILURES_TO_OPEN = 3  # in a row: one lost connection is no outage
OPEN_S = 2.0  # an embedded server that restarts is back within seconds


class CircuitState(Enum):
    """Whether requests go to an endpoint."""

    CLOSED = "closed"  # it answers
    OPEN = "open"  # it does not; nothing is sent
    HALF_OPEN = "half_open"  # one request is on its way to find out


class Circuit:
    """The circuit to one endpoint; may be used by several threads at once.

    Args:
        endpoint: its gRPC target.
        clock: seconds that only grow.
    """

    def __init__(self, endpoint: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._lock = threading.Lock()
        self._state = CircuitState.CLOSED
        self._failures = 0
        self._opened_at = 0.0

    @property
    def state(self) -> CircuitState:
        """Where the circuit is now."""
        with self._lock:
            return self._state

    def admits(self) -> bool:
        """Tell whether a request may be sent; where the circuit was open long enough, one may, to find out."""
        with self._lock:
            if self._state is CircuitState.CLOSED:
                return True
            if self._clock() - self._opened_at < OPEN_S:
                return False
            self._change(CircuitState.HALF_OPEN)
            self._opened_at = self._clock()  # where nobody hears of that request, another may find out later
            return True

    def answered(self) -> None:
        """Note that the endpoint answered, be it with a refusal."""
        with self._lock:
            self._failures = 0
            self._change(CircuitState.CLOSED)

    def failed(self) -> None:
        """Note that the endpoint did not answer."""
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN or self._state is CircuitState.HALF_OPEN:
                self._opened_at = self._clock()
                self._change(CircuitState.OPEN)

    def _change(self, state: CircuitState) -> None:
        if state is not self._state:
            self._state = state
            log.info("endpoint_circuit", endpoint=self.endpoint, state=state.value)
