"""The audit trail in the browser, for auditors and administrators."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from worklist_ui.services import services

pages = Blueprint("audit", __name__)

NEWEST = 500
LONGEST_QUERY = 64


@pages.get("/audit")
def show() -> ResponseReturnValue:
    """Show the newest rows, of one person or patient if asked, and whether the chain is whole."""
    actor = request.args.get("actor", "").strip().lower()[:LONGEST_QUERY]
    patient_id = request.args.get("patient_id", "").strip()[:LONGEST_QUERY]
    return render_template(
        "audit.html",
        records=list(services().audit.records(actor=actor, patient_id=patient_id, newest=NEWEST)),
        verdict=services().audit.verify(),
        actor=actor,
        patient_id=patient_id,
        newest=NEWEST,
    )
