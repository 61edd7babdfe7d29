"""Asking a PACS what it has: C-FIND in the Study Root model at study, series and image level (PS3.4 Annex C).

What PACS are seen to do otherwise than the Standard says is met here: counts left out or empty, values padded, matching
that is passed over, the same match twice, text in a character set that is not the one claimed, answers cut off at a
limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association

from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.peer import Peer, PeerUnreachable, check_reachable, reactor_held, why_not_established
from dicom_listener.text import text_of
from dicom_listener.uids import checked_uid
from triage.errors import TriageError

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"  # PS3.5 10.1: everybody has it
PENDING = frozenset({0xFF00, 0xFF01})
SUCCESS = 0x0000
# Out of resources; response limit; Orthanc: cancelled, though nobody did. All mean that there would be more.
CUT_OFF = frozenset({0xA700, 0xB001, 0xFE00})
MATCHES_MAX = 100_000  # of one query; a PACS that answers without end must not fill the memory
DAY_S = 86400
WINDOW_MIN_S = 60  # of study times; a PACS that cuts off the studies of one minute cannot be reconciled

CHARACTER_SET = 0x00080005
STUDY_KEYS = {
    "StudyInstanceUID": 0x0020000D,
    "StudyDate": 0x00080020,
    "StudyTime": 0x00080030,
    "StudyDescription": 0x00081030,
    "ModalitiesInStudy": 0x00080061,
    "NumberOfStudyRelatedInstances": 0x00201208,
}
SERIES_KEYS = {
    "SeriesInstanceUID": 0x0020000E,
    "Modality": 0x00080060,
    "SeriesDescription": 0x0008103E,
    "BodyPartExamined": 0x00180015,
    "NumberOfSeriesRelatedInstances": 0x00201209,
}
SOP_INSTANCE_UID = 0x00080018


class PacsError(TriageError):
    """The PACS did not do what was asked.

    Args:
        what: the request that failed.
        status: its status, PS3.7 Annex C and PS3.4 C.4; None: no answer, or one that cannot be read.
    """

    def __init__(self, what: str, status: int | None) -> None:
        self.status = status
        said = "gave no answer in time, or one that cannot be read" if status is None else f"answered 0x{status:04X}"
        super().__init__(f"The PACS {said} to {what}.")


class CutOff(PacsError):
    """The PACS has more matches than it tells in one answer."""


@dataclass(frozen=True)
class PacsStudy:
    """A study as the PACS describes it; None and empty where it says nothing."""

    study_instance_uid: str
    study_date: str
    description: str
    modalities: frozenset[str]
    instance_count: int | None


@dataclass(frozen=True)
class PacsSeries:
    """A series as the PACS describes it; None and empty where it says nothing."""

    series_instance_uid: str
    modality: str
    description: str
    body_part: str
    instance_count: int | None


class Pacs:
    """One association for questions; a context manager, entering which raises `PeerUnreachable`.

    Args:
        peer: the PACS.
        timeout_s: for one answer.
    """

    def __init__(self, peer: Peer, *, timeout_s: float) -> None:
        # pynetdicom would otherwise decode every answer for its log, and quote patients in it
        _config.LOG_RESPONSE_IDENTIFIERS = _config.LOG_REQUEST_IDENTIFIERS = False
        self._peer = peer
        self._timeout_s = timeout_s
        self._open = ExitStack()

    def __enter__(self) -> Pacs:
        context = build_context(STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)
        self._association = self._open.enter_context(associated(self._peer, [context], self._timeout_s))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def studies(self, day: date, *, modality: str = "") -> list[PacsStudy]:
        """Give the studies of one day, each once.

        Args:
            day: of the study date.
            modality: only studies that hold it; empty: all.

        Raises:
            PacsError: the PACS refused, or could not tell all of them.
        """
        found: dict[str, PacsStudy] = {}
        for match in self._studies_between(day, 0, DAY_S, modality):
            study = _study_from(match)
            if study is not None and _is_asked_for(study, day, modality):
                known = found.get(study.study_instance_uid, study)
                found[study.study_instance_uid] = max(known, study, key=lambda item: item.instance_count or 0)
        return list(found.values())

    def series(self, study_instance_uid: str) -> list[PacsSeries]:
        """Give the series of a study, each once.

        Raises:
            PacsError: the PACS refused, or could not tell all of them.
        """
        query = _query("SERIES", SERIES_KEYS, StudyInstanceUID=study_instance_uid)
        found = (_series_from(match) for match in self._find(query, "C-FIND of series"))
        return list({item.series_instance_uid: item for item in found if item is not None}.values())

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> frozenset[str]:
        """Give the SOP Instance UIDs of a series.

        Raises:
            PacsError: the PACS refused, or could not tell all of them.
        """
        query = _query("IMAGE", {"SOPInstanceUID": SOP_INSTANCE_UID},
                       StudyInstanceUID=study_instance_uid, SeriesInstanceUID=series_instance_uid)  # fmt: skip
        uids = (_uid(match, SOP_INSTANCE_UID) for match in self._find(query, "C-FIND of images"))
        return frozenset(uid for uid in uids if uid)

    def _studies_between(self, day: date, start_s: int, end_s: int, modality: str) -> Iterator[Dataset]:
        """Ask for the studies of a part of a day, in halves if the PACS cannot tell all at once."""
        keys = {"StudyDate": f"{day:%Y%m%d}", "ModalitiesInStudy": modality}
        if (start_s, end_s) != (0, DAY_S):
            keys["StudyTime"] = f"{_clock_time(start_s)}-{_clock_time(end_s) if end_s < DAY_S else ''}"
        try:
            yield from self._find(_query("STUDY", STUDY_KEYS, **keys), "C-FIND of studies")
        except CutOff:
            if end_s - start_s <= WINDOW_MIN_S:
                raise
            # the matches before the cut were given as well: studies without a time are found by no half
            middle_s = (start_s + end_s) // 2
            yield from self._studies_between(day, start_s, middle_s, modality)
            yield from self._studies_between(day, middle_s, end_s, modality)

    def _find(self, query: Dataset, what: str) -> Iterator[Dataset]:
        """Give the matches of a query.

        Raises:
            CutOff: after the matches that were told.
            PacsError: the PACS refused, broke off, or told what cannot be read.
        """
        if not self._association.is_established:
            raise PacsError(what, None)
        matches = 0
        for status, identifier in self._association.send_c_find(query, STUDY_ROOT_FIND):
            code = _status(status)
            if code in PENDING:
                matches += 1
                if identifier is None or matches > MATCHES_MAX:
                    self._association.abort()
                    raise PacsError(what, None if identifier is None else code)
                yield identifier
            elif code in CUT_OFF:
                raise CutOff(what, code)
            elif code != SUCCESS:
                raise PacsError(what, code)


@contextmanager
def associated(peer: Peer, contexts: list[Any], timeout_s: float, **options: Any) -> Iterator[Association]:
    """Hold an association.

    Args:
        peer: with whom.
        contexts: what is proposed.
        timeout_s: for one answer.
        options: of pynetdicom's `AE.associate`.

    Raises:
        PeerUnreachable: it was not accepted, or none of the contexts was.
    """
    ae = AE(ae_title=peer.calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.connection_timeout = min(timeout_s, 10.0)
    check_reachable(peer)
    association = peer.associate(ae, contexts, **options)
    if not association.is_established:
        raise PeerUnreachable(f"{peer} {why_not_established(association, peer)}")
    connection = association.dul.socket.socket
    try:
        with reactor_held(association):
            yield association
    finally:
        if association.is_established:
            association.release()
        connection.close()  # pynetdicom leaves it open when the peer has gone


def _query(level: str, keys: Iterable[str], **matching: str) -> Dataset:
    """Give an identifier (PS3.4 C.4.1.1.3): all keys to be told, some of them to be matched."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for key in keys:
        setattr(identifier, key, "")
    for key, value in matching.items():
        setattr(identifier, key, value)
    return identifier


def _clock_time(seconds: int) -> str:
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"


def _is_asked_for(study: PacsStudy, day: date, modality: str) -> bool:
    """Whether a match is one: some PACS pass over keys that they do not know."""
    if study.study_date and study.study_date != f"{day:%Y%m%d}":
        return False
    return not modality or not study.modalities or modality in study.modalities


def _study_from(match: Dataset) -> PacsStudy | None:
    uid = _uid(match, STUDY_KEYS["StudyInstanceUID"])
    if uid is None:
        return None
    return PacsStudy(
        study_instance_uid=uid,
        study_date=_text(match, STUDY_KEYS["StudyDate"]).replace(".", ""),  # 2026.11.23: ACR-NEMA 2.0
        description=_text(match, STUDY_KEYS["StudyDescription"]),
        modalities=frozenset(_texts(match, STUDY_KEYS["ModalitiesInStudy"])),
        instance_count=_count(match, STUDY_KEYS["NumberOfStudyRelatedInstances"]),
    )


def _series_from(match: Dataset) -> PacsSeries | None:
    uid = _uid(match, SERIES_KEYS["SeriesInstanceUID"])
    if uid is None:
        return None
    return PacsSeries(
        series_instance_uid=uid,
        modality=_text(match, SERIES_KEYS["Modality"]).upper(),
        description=_text(match, SERIES_KEYS["SeriesDescription"]),
        body_part=_text(match, SERIES_KEYS["BodyPartExamined"]),
        instance_count=_count(match, SERIES_KEYS["NumberOfSeriesRelatedInstances"]),
    )


def _raw(match: Dataset, tag: int) -> bytes:
    """Give a value as it was sent: pydicom's own conversion may raise on what is odd."""
    if tag not in match:
        return b""
    value = match.get_item(tag).value
    return value if isinstance(value, bytes) else str(value or "").encode()


def _text(match: Dataset, tag: int) -> str:
    return text_of(_raw(match, tag), _raw(match, CHARACTER_SET))


def _texts(match: Dataset, tag: int) -> list[str]:
    """Give the values of a code string; some PACS part them by commas."""
    parts = _text(match, tag).upper().replace(",", "\\").split("\\")
    return [part.strip() for part in parts if part.strip()]


def _uid(match: Dataset, tag: int) -> str | None:
    return checked_uid(_raw(match, tag).strip())


def _count(match: Dataset, tag: int) -> int | None:
    """Read a count; what is no whole number above 0 is as good as absent, as 0 stands in for "unknown" too."""
    text = _text(match, tag)
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 2**31 else None


def _status(status: Dataset) -> int | None:
    return int(status.Status) if "Status" in status else None
