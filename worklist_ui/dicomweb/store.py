"""STOW-RS: images from programs, handed to the listener as they come (PS3.18 10.5)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing

from flask import Blueprint, Response, abort, request, url_for
from pydicom.dataset import Dataset
from werkzeug.http import parse_options_header

from triage.intake_door import Bringer, Brought, Caller, DoorClosed
from worklist_ui.dicomweb.incoming_parts import BrokenBody, IncomingParts, PartRefused
from worklist_ui.dicomweb.negotiation import DICOM, JSON
from worklist_ui.problems import problem
from worklist_ui.services import services

pages = Blueprint("dicomweb_store", __name__, url_prefix="/dicomweb")

CALLER = "STOW-RS"  # stands where a calling AE title does: [[listener.senders]] may set something for it
READ_BYTES = 256 * 1024
SUCCESS = 0x0000
ALL_KEPT, SOME_KEPT, NONE_KEPT = 200, 202, 409  # PS3.18 Table 10.5.3-1


@pages.post("/studies")
@pages.post("/studies/<study_instance_uid>")
def instances(study_instance_uid: str = "") -> Response:
    """Take instances; each is durable, or refused with a reason, when this is answered."""
    boundary = _boundary()
    request.max_content_length = sys.maxsize  # the listener limits each object, and looks at its disk
    try:
        with closing(Bringer(services().folder, Caller(CALLER, study_instance_uid))) as bringer:
            brought = IncomingParts(boundary, bringer).take(_body())
    except DoorClosed as closed:
        return problem(503, str(closed), headers={"Retry-After": "10"})
    except BrokenBody as broken:
        return problem(400, f"{broken} What came before it may be kept; send all of it again.")
    if not brought:
        return problem(400, f"The body has no part. Send at least one as {DICOM}.")
    kept = [item for item in brought if isinstance(item, Brought) and item.status == SUCCESS]
    status = ALL_KEPT if len(kept) == len(brought) else SOME_KEPT if kept else NONE_KEPT
    return Response(_report(brought, kept).to_json(), status=status, content_type=JSON)


def _boundary() -> bytes:
    """Give what stands between the parts; refuse any other kind of body."""
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    parts = options.get("type", DICOM)
    if kind != "multipart/related" or parts != DICOM or not options.get("boundary"):
        found = kind if kind != "multipart/related" else f"{kind} of {parts}"
        abort(415, f'The body is {found or "of no media type"}; send multipart/related; type="{DICOM}"; boundary=...')
    return options["boundary"].encode("latin-1", "replace")


def _body() -> Iterator[bytes]:
    while piece := request.stream.read(READ_BYTES):
        yield piece


def _report(brought: Sequence[Brought | PartRefused], kept: Sequence[Brought]) -> Dataset:
    """Say what became of each instance (PS3.18 Table 10.5.3-2)."""
    report = Dataset()
    studies = {item.study_instance_uid for item in kept}
    if len(studies) == 1:
        report.RetrieveURL = _address(study_instance_uid=studies.pop())
    if kept:
        report.ReferencedSOPSequence = [_reference(item) for item in kept]
    failed = [item for item in brought if not (isinstance(item, Brought) and item.status == SUCCESS)]
    if failed:
        report.FailedSOPSequence = [_failure(item) for item in failed]
    return report


def _reference(item: Brought) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.sop_class_uid
    reference.ReferencedSOPInstanceUID = item.sop_instance_uid
    reference.RetrieveURL = _address(study_instance_uid=item.study_instance_uid)
    return reference


def _failure(item: Brought | PartRefused) -> Dataset:
    failure = Dataset()
    if isinstance(item, Brought) and item.sop_instance_uid:
        failure.ReferencedSOPClassUID = item.sop_class_uid
        failure.ReferencedSOPInstanceUID = item.sop_instance_uid
    failure.FailureReason = item.status
    failure.ErrorComment = item.comment
    return failure


def _address(**values: str) -> str:
    return url_for("dicomweb_retrieve.instances", _external=True, **values)
