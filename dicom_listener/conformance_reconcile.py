"""The part of the conformance statement on `ich-triage reconcile`: what it asks of a PACS, as service class user."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.uid import UID

from dicom_listener.pacs import IMPLICIT_VR_LITTLE_ENDIAN, SERIES_KEYS, STUDY_KEYS, STUDY_ROOT_FIND
from dicom_listener.retrieving import CT_CLASSES, CT_SYNTAXES, MEANING, OTHER_CLASSES, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from triage.settings import ReconcileSettings

MATCHED = {"StudyDate": "single date", "StudyTime": "range, only where the PACS cuts its answers off"}


def reconcile_section(settings: ReconcileSettings) -> Iterator[str]:
    """Give the lines of the section."""
    yield "## 4 Comparison with the PACS"
    yield ""
    yield f"`ich-triage reconcile` opens associations as `{settings.ae_title}`, one at a time, one operation at a time,"
    yield f"with `{settings.pacs_ae_title}`; it waits {settings.timeout_s:g} s for an answer. What is fetched by C-GET"
    yield "is handed on to the port above by C-STORE, byte for byte."
    if settings.username:
        yield f"User identity negotiation: type {'2' if settings.passcode else '1'}, no positive response is asked for."
    yield ""
    yield "| abstract syntax | UID | role | transfer syntaxes |"
    yield "|---|---|---|---|"
    yield from _contexts(settings)
    yield ""
    yield "| key of C-FIND | level | matching |"
    yield "|---|---|---|"
    yield from _keys(settings)
    yield ""
    yield "| answer of the PACS | what is done |"
    yield "|---|---|"
    yield "| 0xFF00, 0xFF01 | the match is taken; padding, repeats and absent counts do no harm |"
    yield "| 0xA700, 0xB001 or unasked 0xFE00 to C-FIND | the day is asked for in halves, down to a minute |"
    for status, meaning in MEANING.items():
        if status != 0xFE00:
            yield f"| 0x{status:04X} to C-MOVE or C-GET | reported: {meaning} |"
    yield "| any other | reported; the comparison counts as not finished |"
    yield ""


def _contexts(settings: ReconcileSettings) -> Iterator[str]:
    yield _context(STUDY_ROOT_FIND, "SCU", "Implicit VR Little Endian")
    if settings.retrieve == "move":
        yield _context(STUDY_ROOT_MOVE, "SCU", "Implicit VR Little Endian")
    elif settings.retrieve == "get":
        yield _context(STUDY_ROOT_GET, "SCU", "Implicit VR Little Endian")
        syntaxes = ", ".join(UID(syntax).name for syntax in CT_SYNTAXES)
        for sop_class in CT_CLASSES:
            yield _context(sop_class, "SCP, by role selection", f"one context each: {syntaxes}")
        for sop_class in OTHER_CLASSES:
            yield _context(sop_class, "SCP, by role selection", f"Explicit and {UID(IMPLICIT_VR_LITTLE_ENDIAN).name}")


def _context(abstract_syntax: str, role: str, syntaxes: str) -> str:
    return f"| {UID(abstract_syntax).name} | `{abstract_syntax}` | {role} | {syntaxes} |"


def _keys(settings: ReconcileSettings) -> Iterator[str]:
    matched = MATCHED | ({"ModalitiesInStudy": "CT"} if settings.match_modality else {})
    for key in STUDY_KEYS:
        yield f"| {key} | STUDY | {matched.get(key, 'universal')} |"
    for key in SERIES_KEYS:
        yield f"| {key} | SERIES | universal |"
    yield "| SOPInstanceUID | IMAGE, of series that are short | universal |"
