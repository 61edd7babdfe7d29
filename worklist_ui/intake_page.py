"""The page on how images come in, for who looks after the PACS."""

from __future__ import annotations

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from worklist_ui.intake import headline
from worklist_ui.services import services

pages = Blueprint("intake", __name__)


@pages.get("/intake")
def show() -> ResponseReturnValue:
    """Show the comparison with the PACS, what was kept apart, disk and workers."""
    now, seen = services().clock(), services().intake.look()
    gaps = seen.coverage.gaps if seen.coverage else ()
    return render_template(
        "intake.html",
        intake=seen,
        concerns=services().intake.concerns(seen),
        headline=headline(seen.coverage, now=now) if seen.coverage else "",
        known={gap.study_instance_uid: services().studies.by_uid(gap.study_instance_uid) for gap in gaps},
        now=now,
    )
