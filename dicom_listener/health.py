"""Metrics and health over HTTP, for the monitoring host."""

from __future__ import annotations

from collections.abc import Callable

from dicom_listener.metrics import Metrics
from triage.probe_server import PROMETHEUS, Page, ProbeServer, report_page


class HealthServer(ProbeServer):
    """Serves GET /metrics, /health and /ready.

    Args:
        address: host and port; port 0 takes a free one.
        metrics: what /metrics shows.
        ailments: gives what is wrong, in words; empty: healthy.
        notes: gives what a person should look at, though no new start would mend it.
        not_ready: tries whether an image could be taken, and gives what is wrong.

    Raises:
        OSError: the port cannot be opened.
    """

    def __init__(
        self,
        address: tuple[str, int],
        metrics: Metrics,
        ailments: Callable[[], list[str]],
        notes: Callable[[], list[str]],
        not_ready: Callable[[], list[str]],
    ) -> None:
        def checked(reasons: list[str]) -> Page:
            reasons = list(dict.fromkeys(reasons))
            report = {"status": "failing" if reasons else "ok", "reasons": reasons, "notes": notes()}
            return report_page(report, failing=bool(reasons))

        pages = {
            "/metrics": lambda: Page(PROMETHEUS, metrics.exposition()),
            "/health": lambda: checked(ailments()),
            "/ready": lambda: checked([*ailments(), *not_ready()]),
        }
        super().__init__(address, pages, name="health")
