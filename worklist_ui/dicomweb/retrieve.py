"""WADO-RS: instances, their metadata, bulk data, frames and pictures (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from flask import Blueprint, Response, abort, g, request, stream_with_context, url_for
from pydicom.dataset import FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from triage.errors import UnreadableInstance
from triage.study import Instance
from worklist_ui.access import SignedIn
from worklist_ui.dicomweb import rendering
from worklist_ui.dicomweb.disclosures import Disclosure
from worklist_ui.dicomweb.encoding import (
    FRAME_MEDIA_TYPES,
    as_explicit_little_endian,
    can_be_unpacked,
    frame_count,
    raw_frame,
    stored_frame,
    syntax_for,
)
from worklist_ui.dicomweb.json_model import Attributes, array, attributes_of, element_at
from worklist_ui.dicomweb.multipart import Part, multipart, single
from worklist_ui.dicomweb.negotiation import (
    AS_STORED,
    DICOM,
    JSON,
    NOT_SAID,
    OCTETS,
    NotAcceptable,
    Wanted,
    choose,
    wanted_from,
)
from worklist_ui.dicomweb.stored import chunks, path_of, present, read
from worklist_ui.services import services

pages = Blueprint("dicomweb_retrieve", __name__, url_prefix="/dicomweb")
log = structlog.get_logger()

STUDY = "/studies/<study_instance_uid>"  # by this name the audit trail knows which study is meant
SERIES = f"{STUDY}/series/<series>"
INSTANCE = f"{SERIES}/instances/<instance>"
GONE = "There is no such {level} here, or its files are gone."
MOST_FRAMES = 10_000  # asked for at once


@pages.get(STUDY)
@pages.get(SERIES)
@pages.get(INSTANCE)
def instances(study_instance_uid: str, series: str | None = None, instance: str | None = None) -> Response:
    """Give files: as they are stored, or in Explicit VR Little Endian where that is asked for and possible."""
    known, there = _files(study_instance_uid, series, instance)
    wanted = [item for item in wanted_from(request.headers, request.args) if item.takes(DICOM)]
    asked = [item.transfer_syntax for item in wanted]
    encodings = [(item, syntax_for(item.transfer_syntax_uid, asked)) for item in there]
    given = [(item, syntax) for item, syntax in encodings if syntax is not None]
    if not given:
        stored = sorted({item.transfer_syntax_uid for item in there})
        abort(406, f"This can be given as {DICOM} with transfer-syntax=* or one of {', '.join(stored)}.")
    _note(study_instance_uid, "instances")
    status = 200 if len(given) == len(known) else 206
    parts = (_file_part(item, syntax) for item, syntax in given)
    if len(given) == 1 and wanted[0].bare:
        return single(next(parts), status=status)
    return multipart(parts, DICOM, status=status)


@pages.get(f"{STUDY}/metadata")
@pages.get(f"{SERIES}/metadata")
@pages.get(f"{INSTANCE}/metadata")
def metadata(study_instance_uid: str, series: str | None = None, instance: str | None = None) -> Response:
    """Give headers as DICOM JSON; bulk data by address."""
    _choose((JSON, "application/json"))
    known, there = _files(study_instance_uid, series, instance)
    _note(study_instance_uid, "metadata")
    body = stream_with_context(array(_metadata_of(item) for item in there))
    return Response(body, status=200 if len(there) == len(known) else 206, content_type=JSON)


@pages.get(f"{INSTANCE}/bulkdata/<path:path>")
def bulkdata(study_instance_uid: str, series: str, instance: str, path: str) -> Response:
    """Give one binary value, by the address that the metadata has for it; pixels uncompressed."""
    wanted = _wanted(OCTETS)
    item, ds = _one(study_instance_uid, series, instance)
    element = element_at(ds, path)
    if element is None or not isinstance(element.value, bytes):
        abort(404, "The instance has no binary value there.")
    _note(study_instance_uid, "bulkdata")
    content = element.value
    if path.upper() == "7FE00010" and UID(item.transfer_syntax_uid).is_encapsulated:
        content = b"".join(_unpacked(ds, number) for number in range(1, frame_count(ds) + 1))
    part = Part(OCTETS, [content], request.base_url)
    return single(part) if wanted.bare else multipart([part], OCTETS)


@pages.get(f"{INSTANCE}/frames/<numbers>")
def frames(study_instance_uid: str, series: str, instance: str, numbers: str) -> Response:
    """Give frames, numbered from 1: uncompressed, or compressed as they are stored."""
    item, ds = _one(study_instance_uid, series, instance)
    wanted_frames = _frame_numbers(numbers, frame_count(ds))
    wanted, media_type = _frame_encoding(item.transfer_syntax_uid)
    _note(study_instance_uid, "frames")
    syntax = ExplicitVRLittleEndian if media_type == OCTETS else item.transfer_syntax_uid
    content_type = f"{media_type}; transfer-syntax={syntax}"
    base = request.base_url.removesuffix(numbers)
    contents = [(number, _frame(ds, number, media_type)) for number in wanted_frames]
    parts = [Part(content_type, [content], f"{base}{number}") for number, content in contents]
    if len(parts) == 1 and wanted.bare:
        return single(parts[0])
    return multipart(parts, media_type)


@pages.get(f"{INSTANCE}/rendered")
def rendered(study_instance_uid: str, series: str, instance: str) -> Response:
    """Draw an instance's first frame."""
    return _picture(study_instance_uid, series, instance, frame_number=1)


@pages.get(f"{INSTANCE}/frames/<int:frame_number>/rendered")
def rendered_frame(study_instance_uid: str, series: str, instance: str, frame_number: int) -> Response:
    """Draw one frame."""
    return _picture(study_instance_uid, series, instance, frame_number)


@pages.get(f"{STUDY}/thumbnail")
@pages.get(f"{SERIES}/thumbnail")
@pages.get(f"{INSTANCE}/thumbnail")
def thumbnail(study_instance_uid: str, series: str | None = None, instance: str | None = None) -> Response:
    """Draw a small picture of the middle image."""
    media_type = _choose((rendering.JPEG, rendering.PNG))
    _, there = _files(study_instance_uid, series, instance)
    middle = there[len(there) // 2]
    side = rendering.THUMBNAIL_SIDE
    return _drawn(study_instance_uid, middle, 1, rendering.Rendering(media_type, viewport=(side, side)))


def _picture(study: str, series: str, instance: str, frame_number: int) -> Response:
    media_type = _choose((rendering.JPEG, rendering.PNG))
    try:
        wanted = rendering.rendering_from(request.args, media_type)
    except ValueError as error:
        abort(400, str(error))
    _, [item] = _files(study, series, instance)
    return _drawn(study, item, frame_number, wanted)


def _drawn(study: str, item: Instance, frame_number: int, wanted: rendering.Rendering) -> Response:
    ds = _read(item)
    _frame_numbers(str(frame_number), frame_count(ds))
    _note(study, "rendered")
    try:
        return Response(rendering.picture(ds, frame_number, wanted), content_type=wanted.media_type)
    except UnreadableInstance as error:
        abort(406, str(error))


def _files(study: str, series: str | None, instance: str | None) -> tuple[list[Instance], list[Instance]]:
    """Give the instances that the ledger knows there, and those whose files are in the store; 404 without any."""
    known = services().images.files(study, series, instance)
    there = present(services().folder, known)
    if len(there) < len(known):
        log.warning("stored_files_missing", count=len(known) - len(there))
    if not there:
        abort(404, GONE.format(level="instance" if instance else "series" if series else "study"))
    return known, there


def _one(study: str, series: str, instance: str) -> tuple[Instance, FileDataset]:
    _, [item] = _files(study, series, instance)
    return item, _read(item)


def _read(item: Instance) -> FileDataset:
    try:
        return read(services().folder, item)
    except UnreadableInstance as error:
        abort(404, str(error))


def _note(study: str, what: str) -> None:
    user: SignedIn = g.user
    disclosure = Disclosure(study, user.username, what, user.token_id)
    services().disclosures.note(disclosure, now=services().clock())


def _file_part(item: Instance, syntax: str) -> Part:
    content_type = f"{DICOM}; transfer-syntax={syntax}"
    location = _address(item)
    if syntax == item.transfer_syntax_uid:
        return Part(content_type, chunks(path_of(services().folder, item)), location)
    # An error from here on breaks the answer off: the caller sees that the end is missing, and not a part less.
    return Part(content_type, [as_explicit_little_endian(read(services().folder, item))], location)


def _metadata_of(item: Instance) -> Attributes:
    base = _address(item)
    try:
        found = attributes_of(read(services().folder, item), lambda path: f"{base}/bulkdata/{path}")
    except UnreadableInstance as error:
        log.warning("metadata_not_read", error_type=type(error).__name__)
        found = {"00080018": {"vr": "UI", "Value": [item.sop_instance_uid]}}
    return found | {"00083002": {"vr": "UI", "Value": [item.transfer_syntax_uid]}}  # which are to be had


def _address(item: Instance) -> str:
    return url_for(
        "dicomweb_retrieve.instances",
        study_instance_uid=item.study_instance_uid,
        series=item.series_instance_uid,
        instance=item.sop_instance_uid,
        _external=True,
    )


def _choose(offered: Sequence[str]) -> str:
    try:
        return choose(wanted_from(request.headers, request.args), offered)
    except NotAcceptable as error:
        abort(406, str(error))


def _wanted(media_type: str) -> Wanted:
    fitting = [item for item in wanted_from(request.headers, request.args) if item.takes(media_type)]
    if not fitting:
        abort(406, f"This can be given as {media_type}.")
    return fitting[0]


def _frame_encoding(stored: str) -> tuple[Wanted, str]:
    """Choose how frames of a stored transfer syntax are given: raw, or as they are compressed."""
    syntaxes = {OCTETS: ExplicitVRLittleEndian} if can_be_unpacked(stored) else {}
    if stored in FRAME_MEDIA_TYPES:
        syntaxes[FRAME_MEDIA_TYPES[stored]] = UID(stored)
    fitting = [
        (item, media_type)
        for item in wanted_from(request.headers, request.args)
        for media_type, syntax in syntaxes.items()
        if item.takes(media_type) and item.transfer_syntax in (AS_STORED, NOT_SAID, syntax)
    ]
    if not fitting:
        abort(406, f"These frames can be given as {' or '.join(syntaxes) or 'nothing but whole instances'}.")
    return fitting[0]


def _frame_numbers(text: str, count: int) -> list[int]:
    numbers = text.split(",")
    if len(numbers) > MOST_FRAMES or not all(number.isdecimal() and len(number) < 10 for number in numbers):
        abort(400, "Frames are numbers from 1 with commas between.")
    if not all(1 <= int(number) <= count for number in numbers):
        abort(404, f"The instance has {count} frames.")
    return [int(number) for number in numbers]


def _frame(ds: FileDataset, frame_number: int, media_type: str) -> bytes:
    return _unpacked(ds, frame_number) if media_type == OCTETS else stored_frame(ds, frame_number)


def _unpacked(ds: FileDataset, frame_number: int) -> bytes:
    try:
        return raw_frame(ds, frame_number)
    except UnreadableInstance as error:
        abort(406, str(error))
