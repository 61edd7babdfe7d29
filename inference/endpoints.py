"""The endpoints of a model, taken in turns: who is asked next, what is sent again, and who is left alone.

An endpoint is asked for its health before its first request, and again after each time it was away.

Reference:
    https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import structlog

from inference.circuit import Circuit, CircuitState
from triage.errors import ServingError, ServingUnavailable

log = structlog.get_logger()

# The endpoint is away, loading or overloaded: the same request may succeed later. A version that went away is here too,
# because the study is then read anew with the version that took its place.
TEMPORARY_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.CANCELLED,
    }
)
# Predict changes nothing at the endpoint, so a request that was not answered may be sent again. A deadline is not
# retried: the time that the caller gave is then spent.
RETRIED_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
UNREACHABLE_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
TOO_LARGE = "larger than max"  # gRPC's words for a message above a limit, under RESOURCE_EXHAUSTED: never temporary
RETRY_WAIT_S = (0.2, 0.5, 1.0)  # before the second, third and fourth try; each is varied by up to half

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_OF_ALL = b""  # HealthCheckRequest of the service "": the server as a whole
NOT_SERVING = b"\x08\x02"  # HealthCheckResponse, field 1 status = NOT_SERVING


class Refused(Exception):
    """A call ended with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code = code
        self.details = details
        super().__init__(details)

    @property
    def too_large(self) -> bool:
        """Whether the message was above a limit of its size."""
        return TOO_LARGE in self.details


class Endpoint:
    """A connection, whether it is used, and how its calls ended.

    Args:
        target: gRPC target.
        channel: connection to it.
    """

    def __init__(self, target: str, channel: grpc.Channel) -> None:
        self.target = target
        self.circuit = Circuit(target)
        self._channel = channel
        self._known = False  # whether it said that it serves since it was last away
        self._lock = threading.Lock()
        self._ended: Counter[str] = Counter()

    def close(self) -> None:
        """Close the connection; calls under way end with an error."""
        self._channel.close()

    def ended(self) -> dict[str, int]:
        """Tell how many calls ended with each code."""
        with self._lock:
            return dict(self._ended)

    def call(self, path: str, request: bytes, deadline_s: float) -> bytes:
        """Call a method once, raw bytes both ways.

        Args:
            path: of the method.
            request: serialised.
            deadline_s: on the monotonic clock.

        Raises:
            Refused: it ended with another status than OK, or the endpoint says that it does not serve.
        """
        try:
            self._ask_health(deadline_s)
            reply = self._once(path, request, deadline_s)
        except Refused as refused:
            self._note(refused.code)
            raise
        self._note(grpc.StatusCode.OK)
        return reply

    def _ask_health(self, deadline_s: float) -> None:
        """Ask once after a start or an absence; a server without the health service counts as healthy."""
        if self._known:
            return
        try:
            serves = self._once(HEALTH_CHECK, HEALTH_OF_ALL, deadline_s) != NOT_SERVING
        except Refused as refused:
            if refused.code in UNREACHABLE_CODES:
                raise
            serves = True
        if not serves:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "its health is NOT_SERVING")
        self._known = True

    def _once(self, path: str, request: bytes, deadline_s: float) -> bytes:
        method: Any = self._channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        try:
            reply: bytes = method(request, timeout=max(deadline_s - time.monotonic(), 0.001))
        except grpc.RpcError as error:
            raise Refused(error.code(), error.details() or "no details") from error
        return reply

    def _note(self, code: grpc.StatusCode) -> None:
        with self._lock:
            self._ended[code.name] += 1
        if code in UNREACHABLE_CODES:
            self._known = False
            self.circuit.failed()
        else:
            self.circuit.answered()


class Endpoints:
    """Calls whichever endpoint answers; may be used by several threads at once.

    Args:
        endpoints: at least one.
        model_name: stands in errors.
    """

    def __init__(self, endpoints: Sequence[Endpoint], model_name: str) -> None:
        self._endpoints = tuple(endpoints)
        self._model_name = model_name
        self._turns = itertools.count()

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def close(self) -> None:
        """Close all connections."""
        for endpoint in self._endpoints:
            endpoint.close()

    def circuits(self) -> dict[str, CircuitState]:
        """Tell whether requests go to each endpoint."""
        return {endpoint.target: endpoint.circuit.state for endpoint in self._endpoints}

    def calls(self) -> dict[tuple[str, str], int]:
        """Tell how many calls ended how, by endpoint and code."""
        return {(each.target, code): count for each in self._endpoints for code, count in each.ended().items()}

    def call(self, path: str, request: bytes, timeout_s: float, *, elsewhere: bool = False) -> bytes:
        """Call one endpoint after the other until one answers, tries run out, or the time is spent.

        Args:
            path: of the method.
            request: serialised.
            timeout_s: for all tries and waits.
            elsewhere: what one endpoint has not (NOT_FOUND), another may have: while a new version comes, replicas
                differ, and the study in hand is to be read to its end by the version that it began with.

        Raises:
            ServingUnavailable: the same request may succeed later.
            ServingError: it will not.
        """
        deadline_s = time.monotonic() + timeout_s
        waits = iter(RETRY_WAIT_S)
        refused: Refused | None = None
        while (endpoint := self._next()) is not None:
            try:
                return endpoint.call(path, request, deadline_s)
            except Refused as error:
                refused = error
            wait_s = _wait_s(refused, waits, elsewhere=elsewhere)
            if wait_s is None or time.monotonic() + wait_s >= deadline_s:
                break
            time.sleep(wait_s)
        if refused is None:
            text = "no endpoint has answered lately; they are tried again in a moment"
            raise ServingUnavailable(text, code="UNAVAILABLE")
        raise _serving_error(refused, self._model_name) from refused

    def _next(self) -> Endpoint | None:
        """Take the next endpoint in turn that is not left alone; None: all are."""
        for _ in self._endpoints:
            endpoint = self._endpoints[next(self._turns) % len(self._endpoints)]
            if endpoint.circuit.admits():
                return endpoint
        return None


def _wait_s(refused: Refused, waits: Iterator[float], *, elsewhere: bool) -> float | None:
    """Give how long to wait before the next try; None: there is none."""
    if elsewhere and refused.code is grpc.StatusCode.NOT_FOUND:
        return 0.0 if next(waits, None) is not None else None
    if refused.code not in RETRIED_CODES or refused.too_large:
        return None
    wait_s = next(waits, None)
    return None if wait_s is None else wait_s * random.uniform(0.5, 1.5)  # noqa: S311  spreads callers, no secret


def _serving_error(refused: Refused, model_name: str) -> ServingError:
    kind = ServingUnavailable if refused.code in TEMPORARY_CODES and not refused.too_large else ServingError
    name = refused.code.name
    return kind(f"the endpoint answered {name} for model {model_name}: {refused.details}", code=name)
