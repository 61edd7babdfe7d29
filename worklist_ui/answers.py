"""What a page, or the page's script, is told after a reader's step."""

from __future__ import annotations

from flask import flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from triage.ledger.reading import Answer

GONE = "There is no such study any more."
HTTP_STATUS = {Answer.DONE: 200, Answer.ALREADY: 200, Answer.TAKEN: 409, Answer.CHANGED: 409, Answer.GONE: 404}


def wants_json() -> bool:
    """Say whether the caller is a script; a browser's form gets a page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


def answered(answer: Answer, message: str, *, study_id: int) -> ResponseReturnValue:
    """Answer a step: JSON for a script, a message on the page that the form was on for a browser."""
    if wants_json():
        return {"answer": answer.value, "message": message}, HTTP_STATUS[answer]
    flash(message, "done" if HTTP_STATUS[answer] == 200 else "refused")
    if request.form.get("from") == "study" and answer is not Answer.GONE:
        return redirect(url_for("study.show", study_id=study_id), 303)
    return redirect(url_for("reading_list.show"), 303)
