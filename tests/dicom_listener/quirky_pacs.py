"""A PACS with the quirks that are seen in the field: pynetdicom's C-FIND and C-MOVE SCP, each quirk a switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

Match = Callable[[Dataset], None]
PENDING, SUCCESS = 0xFF00, 0x0000


@dataclass
class QuirkyPacs:
    """What it has, and how it misbehaves.

    Attributes:
        images: what it has.
        listener_port: where C-MOVE sends to.
        statuses: instead of an answer to a query at that level.
        after: matches before that status; None: it aborts there.
        passes_over: keys that it does not match by.
        change: done to each match of a level before it is told.
        repeats: how often it tells each match.
        move_refused: levels that C-MOVE refuses.
        pretends: C-MOVE says Success and sends nothing.
        proposed: abstract syntaxes that it was asked for.
        identity: user name and passcode that it asks for; None: any.
    """

    images: list[Dataset]
    listener_port: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    aborts: bool = False
    passes_over: Sequence[str] = ()
    change: dict[str, Match] = field(default_factory=dict)
    repeats: int = 1
    move_refused: Sequence[str] = ()
    pretends: bool = False
    queries: list[Dataset] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    proposed: set[str] = field(default_factory=set)
    identity: tuple[bytes, bytes] | None = None
    port: int = 0

    def requested(self, event: Any) -> None:
        self.proposed |= {str(context.abstract_syntax) for context in event.assoc.requestor.requested_contexts}

    def user(self, event: Any) -> tuple[bool, None]:
        return self.identity in (None, (event.primary_field, event.secondary_field)), None

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        level = query.QueryRetrieveLevel
        self.queries.append(query)
        told = 0
        for match in self._matches(query, level):
            for _ in range(self.repeats):
                if level in self.statuses and told >= self.after.get(level, 0):
                    break
                told += 1
                yield PENDING, match
        if level in self.statuses:
            if self.aborts:
                event.assoc.abort()
                return
            yield self.statuses[level], None

    def _matches(self, query: Dataset, level: str) -> Iterator[Dataset]:
        key = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        groups: dict[str, list[Dataset]] = {}
        for image in self.images:
            groups.setdefault(image[key].value, []).append(image)
        for images in groups.values():
            if self._is_match(query, images):
                match = _told(images, level)
                self.change.get(level, lambda _: None)(match)
                yield match

    def _is_match(self, query: Dataset, images: list[Dataset]) -> bool:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "StudyDate"):
            wanted = query.get(keyword)
            if wanted and keyword not in self.passes_over and all(item.get(keyword) != wanted for item in images):
                return False
        modality = query.get("ModalitiesInStudy")
        passed = not modality or "ModalitiesInStudy" in self.passes_over
        return passed or any(item.Modality == modality for item in images)

    def move(self, event: Any) -> Iterator[Any]:
        wanted = event.identifier
        refused = wanted.QueryRetrieveLevel in self.move_refused
        chosen = [] if self.pretends else [image for image in self.images if _is_wanted(image, wanted)]
        yield "127.0.0.1", self.listener_port, {"contexts": [build_context(CTImageStorage)]}
        yield len(chosen)
        if refused:
            yield 0xA900, None
            return
        self.moved.append(wanted.QueryRetrieveLevel)
        for image in chosen:
            yield PENDING, image


def _told(images: list[Dataset], level: str) -> Dataset:
    match = Dataset()
    first = images[0]
    match.QueryRetrieveLevel = level
    match.StudyInstanceUID = first.StudyInstanceUID
    if level == "STUDY":
        match.StudyDate, match.StudyTime = first.StudyDate, first.StudyTime
        match.StudyDescription = first.get("StudyDescription", "")
        match.ModalitiesInStudy = sorted({image.Modality for image in images})
        match.NumberOfStudyRelatedInstances = len(images)
        return match
    match.SeriesInstanceUID = first.SeriesInstanceUID
    if level == "SERIES":
        match.Modality, match.SeriesDescription = first.Modality, first.get("SeriesDescription", "")
        match.BodyPartExamined = first.get("BodyPartExamined", "")
        match.NumberOfSeriesRelatedInstances = len(images)
    else:
        match.SOPInstanceUID = first.SOPInstanceUID
    return match


def _is_wanted(image: Dataset, wanted: Dataset) -> bool:
    uids = wanted.get("SOPInstanceUID") or [image.SOPInstanceUID]
    return (
        image.StudyInstanceUID == wanted.StudyInstanceUID
        and wanted.get("SeriesInstanceUID", image.SeriesInstanceUID) == image.SeriesInstanceUID
        and image.SOPInstanceUID in ([uids] if isinstance(uids, str) else uids)
    )


def with_bytes(match: Dataset, keyword: str, value: bytes) -> None:
    """Set an element to bytes that pydicom would not write: in Implicit VR nobody sees that this is VR OB."""
    tag = Tag(keyword)
    match[tag] = DataElement(tag, "OB", value)


@contextmanager
def running_pacs(images: Sequence[Dataset], **quirks: Any) -> Iterator[QuirkyPacs]:
    """Run it on a free loopback port."""
    pacs = QuirkyPacs(list(images), **quirks)
    ae = AE("QUIRKY")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_FIND, pacs.find),
            (evt.EVT_C_MOVE, pacs.move),
            (evt.EVT_REQUESTED, pacs.requested),
            (evt.EVT_USER_ID, pacs.user),
        ],
    )
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()
