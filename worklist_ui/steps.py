"""What a reader does with a study: claim, release, mark as read, undo, agree or disagree; and who may hand it over."""

from __future__ import annotations

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue

from triage.ledger.feedback import Disagreement
from triage.ledger.reading import Answer
from worklist_ui.access import reader
from worklist_ui.answers import GONE, answered
from worklist_ui.roles import PERMISSIONS, Permission, Role, may
from worklist_ui.services import services
from worklist_ui.study import STUDY_PREFIX

pages = Blueprint("steps", __name__, url_prefix=STUDY_PREFIX)


@pages.post("/claim")
def claim(study_id: int) -> ResponseReturnValue:
    """Take the study to read."""
    now = services().clock()
    answer = services().reading.claim(study_id, reader(), expires_before=_expires_before(now), now=now)
    messages = {
        Answer.DONE: "You have the study.",
        Answer.ALREADY: "You have the study already.",
        Answer.TAKEN: f"{_holder(study_id)} was faster and has the study.",
        Answer.CHANGED: "The study has been read.",
    }
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


@pages.post("/release")
def release(study_id: int) -> ResponseReturnValue:
    """Give the study back to all."""
    answer = services().reading.release(study_id, reader(), now=services().clock())
    messages = {
        Answer.DONE: "The study is free again.",
        Answer.ALREADY: "Nobody has the study.",
        Answer.TAKEN: f"{_holder(study_id)} has the study.",
    }
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


@pages.post("/read")
def mark_read(study_id: int) -> ResponseReturnValue:
    """Take the study off the open list."""
    now = services().clock()
    answer = services().reading.mark_read(
        study_id, reader(), revision=_revision(), expires_before=_expires_before(now), now=now
    )
    messages = {
        Answer.DONE: "Marked as read.",
        Answer.ALREADY: "You have marked it as read already.",
        Answer.TAKEN: f"Not marked: {_holder(study_id)} has the study.",
        Answer.CHANGED: "Not marked: images came since you opened it. Look at the study again.",
    }
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


@pages.post("/undo")
def undo_read(study_id: int) -> ResponseReturnValue:
    """Put the study back on the open list."""
    answer = services().reading.undo_read(study_id, reader(), now=services().clock())
    messages = {
        Answer.DONE: "Back on the list.",
        Answer.ALREADY: "The study is on the list.",
        Answer.TAKEN: f"{_holder(study_id)} has marked it as read; only they can undo it.",
    }
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


@pages.post("/agree")
def agree(study_id: int) -> ResponseReturnValue:
    """Say that the model is right."""
    return _opinion(study_id, None, "You agree with the model.")


@pages.post("/disagree")
def disagree(study_id: int) -> ResponseReturnValue:
    """Say that the model is wrong, and why."""
    try:
        reason = Disagreement(request.form.get("reason", ""))
    except ValueError:
        abort(400, f"The reason must be one of: {', '.join(Disagreement)}.")
    return _opinion(study_id, reason, "You disagree with the model; thank you for the reason.")


@pages.post("/withdraw")
def withdraw(study_id: int) -> ResponseReturnValue:
    """Take an opinion back."""
    answer = services().feedback.take_back(study_id, reader(), now=services().clock())
    messages = {Answer.DONE: "Your opinion is withdrawn.", Answer.ALREADY: "You have given no opinion."}
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


@pages.post("/reassign")
def reassign(study_id: int) -> ResponseReturnValue:
    """Give the study to a reader, whoever has it."""
    to = request.form.get("to", "")
    user = services().users.by_name(to)
    if user is None or user.disabled or user.role not in PERMISSIONS or not may(Role(user.role), Permission.READ):
        abort(400, "There is no such reader.")
    answer = services().reading.reassign(study_id, to, by=reader(), now=services().clock())
    messages = {
        Answer.DONE: f"{to} has the study now.",
        Answer.ALREADY: f"{to} has the study already.",
        Answer.CHANGED: "The study has been read.",
    }
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


@pages.post("/queue-again")
def queue_again(study_id: int) -> ResponseReturnValue:
    """Send the study to the model once more."""
    entry = services().reading.entry(study_id)
    if entry is None:
        return answered(Answer.GONE, GONE, study_id=study_id)
    queued = services().queue.queue_again(entry.study.study_instance_uid, actor=reader(), now=services().clock())
    answer = Answer.DONE if queued else Answer.ALREADY
    message = "The study waits for the model." if queued else "The study has not ended its run."
    return answered(answer, message, study_id=study_id)


def _opinion(study_id: int, reason: Disagreement | None, done: str) -> ResponseReturnValue:
    answer = services().feedback.give(
        study_id,
        reader(),
        revision=_revision(),
        reason=reason,
        note=request.form.get("note", ""),
        now=services().clock(),
    )
    messages = {
        Answer.DONE: done,
        Answer.ALREADY: "You have said so already.",
        Answer.CHANGED: "Not kept: there is another result since you opened the study, or none. Look at it again.",
    }
    return answered(answer, messages.get(answer, GONE), study_id=study_id)


def _revision() -> int:
    revision = request.form.get("revision", type=int)
    if revision is None:
        abort(400, "The form does not say which revision was seen.")
    return revision


def _expires_before(now: float) -> float:
    return now - services().settings.claim_minutes * 60


def _holder(study_id: int) -> str:
    entry = services().reading.entry(study_id)
    return (entry.study.claimed_by or entry.study.read_by or "Somebody else") if entry else "Somebody else"
