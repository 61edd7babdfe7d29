"""Whether this process answers and reaches its ledger: for health checks, without sign-in and without patients."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from worklist_ui.services import services

pages = Blueprint("health", __name__)


@pages.get("/health")
def health() -> ResponseReturnValue:
    """Answer 200 if the ledger can be read."""
    services().reading.last_change()
    return {"status": "ok"}
