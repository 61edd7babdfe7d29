"""The page on how far readers agree with the model: figures alone, without a patient."""

from __future__ import annotations

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from worklist_ui.opinions import agreement, labels_of
from worklist_ui.services import services

pages = Blueprint("opinions", __name__)


@pages.get("/agreement")
def show() -> ResponseReturnValue:
    """Show agreement by version of the model, and how many studies training can learn from."""
    judged = services().feedback.judged()
    labels = labels_of(judged)
    return render_template(
        "opinions.html",
        opinions=len(judged),
        versions=agreement(judged),
        bleeding=sum(label.bleed is True for label in labels),
        free=sum(label.bleed is False for label in labels),
        unsure=sum(label.bleed is None for label in labels),
    )
