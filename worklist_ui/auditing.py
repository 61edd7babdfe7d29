"""Writes the audit trail: after each request that shows a patient, changes something or tries to get in.

What cannot be noted is not answered. The same person looking at the same thing again and again (a list that updates
itself, slice after slice) is one look (`looks.py`); every change is noted.
"""

from __future__ import annotations

import structlog
from flask import Response, g, request

from triage.errors import StoreError
from triage.ledger.audit import Deed
from worklist_ui.roles import ROUTES, Permission
from worklist_ui.services import services
from worklist_ui.wording import clean

NOT_NOTED = frozenset(
    {
        "static",
        "health.health",
        "sign_in.form",
        "sign_in.link_form",
        "sign_in.home",
        "sign_in.nothing",
        "reading_list.flags",
        "reading_list.next_study",
        "api.openapi",
        "oidc.start",
        "api.reference",
    }
)
LONGEST_DETAIL = 120
LARGEST_ID = 2**63 - 1  # of SQLite; a larger number in an address names no study
LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})
NAMES = {  # what the trail calls it, where the endpoint's own name says too little
    "sign_in.enter": "sign_in",
    "oidc.callback": "sign_in",
    "sign_in.leave": "sign_out",
    "sign_in.use_link": "use_link",
    "reading_list.show": "view_list",
    "reading_list.rows": "view_list",
    "reading_list.stream": "view_list",
    "study.show": "view_study",
    "intake.show": "view_intake",
    "opinions.show": "view_agreement",
    "study.slice_image": "view_images",
    "api.list_studies": "view_list",
    "api.events": "view_list",
    "api.show_study": "view_study",
    "dicomweb_search.studies": "search_images",
    "dicomweb_search.series": "search_images",
    "dicomweb_search.instances": "search_images",
    "dicomweb_retrieve.instances": "retrieve_instances",
    "dicomweb_store.instances": "store_instances",
    "dicomweb_retrieve.metadata": "retrieve_metadata",
    "dicomweb_retrieve.bulkdata": "retrieve_bulkdata",
    "dicomweb_retrieve.frames": "retrieve_frames",
    "dicomweb_retrieve.rendered": "retrieve_pictures",
    "dicomweb_retrieve.rendered_frame": "retrieve_pictures",
    "dicomweb_retrieve.thumbnail": "retrieve_pictures",
}
log = structlog.get_logger()


def note_in_audit_trail(response: Response) -> Response:
    """Add what was asked and how it was answered; without it, the answer is withheld."""
    endpoint = request.endpoint
    if endpoint is None or endpoint in NOT_NOTED or endpoint not in ROUTES:
        return response
    if ROUTES[endpoint] is not Permission.ANYBODY and g.get("user") is None:
        return response  # a stranger who was sent to the sign-in page saw nothing
    now = services().clock()
    deed = _deed(endpoint, response.status_code)
    look = (deed.actor, deed.action, deed.study_instance_uid, str(deed.outcome), deed.peer_host)
    if request.method in LOOKS and not services().looks.is_new(look, now=now):
        return response
    try:
        services().audit.add(deed, now=now)
    except StoreError:
        log.exception("audit_not_written", route=endpoint)
        services().looks.forget(look)
        response.close()
        return Response("The audit trail takes no entries just now; try again.", status=503, mimetype="text/plain")
    return response


def _deed(endpoint: str, status: int) -> Deed:
    user = g.get("user")
    study_uid, patient_id = _subject()
    return Deed(
        actor=user.username if user else g.get("signed_in_as", ""),
        role=user.role.value if user else "",
        action=NAMES.get(
            endpoint, endpoint.rpartition(".")[2] if endpoint.startswith(("steps.", "api.")) else endpoint
        ),
        outcome=status,
        peer_host=request.remote_addr or "",
        study_instance_uid=study_uid,
        patient_id=patient_id,
        detail=_detail(),
    )


def _detail() -> str:
    """Give what was asked for besides the study: a token, or a reason, a reader, an account and its role."""
    user = g.get("user")
    if user is None:
        return ""
    if user.token_id is not None:
        return f"token {user.token_id}"
    form, values = request.form, request.view_args or {}
    account = values.get("username", "") or form.get("username", "")
    parts = (form.get("reason", ""), form.get("to", ""), str(account), form.get("role", ""))
    return clean(" ".join(part for part in parts if part), LONGEST_DETAIL)


def _subject() -> tuple[str, str]:
    """Give study and patient that the address names."""
    values = request.view_args or {}
    if "study_id" in values:
        if values["study_id"] > LARGEST_ID:
            return "", ""
        study = services().studies.by_id(values["study_id"])
    elif "study_instance_uid" in values:
        study = services().studies.by_uid(str(values["study_instance_uid"]))
    else:
        return "", ""
    return ("", "") if study is None else (study.study_instance_uid, study.header.patient_id)
