"""Who was given which study's images: noted before the first byte leaves, once for a while and not for each frame."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from triage.ledger.retrievals import Retrievals

NOTE_EVERY_S = 600.0  # a viewer asks for hundreds of frames of a study: one line says that somebody looks at it
MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class Disclosure:
    """What is given of a study, and to whom."""

    study_instance_uid: str
    actor: str
    what: str  # "instances", "metadata", "frames", "rendered", ...
    by_token: int | None = None  # the token's number, where one was shown


class Disclosures:
    """Notes in the ledger what is given; remembers what it noted a while ago."""

    def __init__(self, retrievals: Retrievals) -> None:
        self._retrievals = retrievals
        self._noted: OrderedDict[Disclosure, float] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, disclosure: Disclosure, *, now: float) -> None:
        """Note a disclosure.

        Raises:
            StoreError: it could not be noted; nothing may be given.
        """
        with self._lock:
            before = self._noted.get(disclosure)
        if before is not None and 0 <= now - before < NOTE_EVERY_S:
            return
        by = f", token {disclosure.by_token}" if disclosure.by_token is not None else ""
        detail = f"{disclosure.what} by DICOMweb{by}"
        self._retrievals.note(disclosure.study_instance_uid, disclosure.actor, detail=detail, now=now)
        with self._lock:
            self._noted[disclosure] = now
            self._noted.move_to_end(disclosure)
            if len(self._noted) > MOST_REMEMBERED:
                self._noted.popitem(last=False)
