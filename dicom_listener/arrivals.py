"""Which associations bring which studies: the part of completion that only this process knows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from dicom_listener.completion import Arrival

REMEMBERED = 2048  # studies that have gone on and sender habits that are kept; more would grow without bound
GAP_FADES = 0.8  # a sender's habit counts a fifth less after each study that came without a gap


@dataclass
class _Association:
    calling_ae_title: str
    studies: set[str] = field(default_factory=set)
    at: str = ""  # the study of its last image


@dataclass(frozen=True)
class _Habit:
    """What a sender has shown, in seconds: between associations of a study, and until it came back to one."""

    gap_s: float = 0.0
    return_s: float = 0.0


@dataclass
class _Study:
    last_image_at: float
    calling_ae_title: str = ""
    open: set[int] = field(default_factory=set)
    released_at: float | None = None
    aborted: bool = False
    gap_s: float = 0.0
    return_s: float = 0.0


class Arrivals:
    """The open associations and the studies that they bring; safe to use from any thread.

    Args:
        gap_max_s: pauses between associations longer than this are no habit that waiting could meet.
    """

    def __init__(self, *, gap_max_s: float) -> None:
        self._gap_max_s = gap_max_s
        self._changed = threading.Condition()
        self._associations: dict[int, _Association] = {}
        self._studies: dict[str, _Study] = {}
        self._gone: OrderedDict[str, _Study] = OrderedDict()  # went on; a late image shows a sender's gap
        self._habits: OrderedDict[str, _Habit] = OrderedDict()  # by calling AE title
        self._changes = 0

    def association_opened(self, association: int, *, calling_ae_title: str) -> None:
        """Note an association that may bring images."""
        with self._changed:
            self._associations[association] = _Association(calling_ae_title)

    def image(self, study_instance_uid: str, *, association: int, now: float) -> None:
        """Note an image before its row is written."""
        with self._changed:
            bringer = self._associations.get(association)
            study = self._studies.get(study_instance_uid)
            if study is None:
                study = self._gone.pop(study_instance_uid, None) or _Study(now)
                self._studies[study_instance_uid] = study
            if bringer is not None and association not in study.open:
                self._note_gap(study, bringer, now=now)
                study.open.add(association)
                bringer.studies.add(study_instance_uid)
            if bringer is not None:
                self._note_return(study, study_instance_uid, bringer, now=now)
                bringer.at = study_instance_uid
            study.last_image_at = now

    def association_ended(self, association: int, *, aborted: bool, now: float) -> None:
        """Note that an association was released, or broke off."""
        with self._changed:
            ended = self._associations.pop(association, None)
            for uid in ended.studies if ended else ():
                study = self._studies.get(uid) or self._gone.get(uid)
                if study is not None:
                    study.open.discard(association)
                    study.released_at, study.aborted = now, aborted
            self._changes += 1
            self._changed.notify_all()

    def adopt(self, study_instance_uid: str, *, last_image_at: float, calling_ae_title: str) -> None:
        """Take over a growing study of the ledger that another process, or this one before a restart, has begun."""
        with self._changed:
            if study_instance_uid not in self._studies:
                # its association is gone, and not by a release that was seen
                self._studies[study_instance_uid] = _Study(
                    last_image_at, calling_ae_title, released_at=last_image_at, aborted=True
                )

    def growing(self) -> dict[str, Arrival]:
        """Give the studies that are waited for."""
        with self._changed:
            return {uid: self._arrival(uid, study) for uid, study in self._studies.items()}

    def gone_on(self, study_instance_uid: str, judged: Arrival) -> None:
        """Forget a study that was queued, but for what a late image would tell of its sender.

        Args:
            study_instance_uid: the study.
            judged: what it was queued by; if images have come since, it is waited for again.
        """
        with self._changed:
            study = self._studies.get(study_instance_uid)
            if study is None or self._arrival(study_instance_uid, study) != judged:
                return
            del self._studies[study_instance_uid]
            self._gone[study_instance_uid] = study
            self._form_habit(study)
            while len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until an association ends after change number `seen`; give the number to wait from next time."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, timeout_s)
            return self._changes

    def senders(self) -> list[str]:
        """Give the calling AE title of each open association."""
        with self._changed:
            return [item.calling_ae_title for item in self._associations.values()]

    def wake(self) -> None:
        """Let `wait` return."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def open_count(self) -> int:
        """Give how many associations are open."""
        with self._changed:
            return len(self._associations)

    def _is_at(self, association: int, study_instance_uid: str) -> bool:
        """Whether the last image of an open association was one of this study."""
        bringer = self._associations.get(association)
        return bringer is not None and bringer.at == study_instance_uid

    def _arrival(self, uid: str, study: _Study) -> Arrival:
        idle = [
            item
            for item in self._associations.values()
            if not item.studies and item.calling_ae_title == study.calling_ae_title
        ]  # opened, nothing sent yet: it may be the next part of this study
        waiting = len(study.open) + len(idle)
        habit = self._habits.get(study.calling_ae_title, _Habit())
        return Arrival(
            last_image_at=study.last_image_at,
            open_associations=waiting,
            released_at=None if waiting else study.released_at,
            aborted=study.aborted and not waiting,
            calling_ae_title=study.calling_ae_title,
            moved_on=not idle and bool(study.open) and not any(self._is_at(number, uid) for number in study.open),
            longest_gap_s=max(study.gap_s, habit.gap_s),
            longest_return_s=max(study.return_s, habit.return_s),
        )

    def _note_gap(self, study: _Study, bringer: _Association, *, now: float) -> None:
        study.calling_ae_title = bringer.calling_ae_title
        if not study.open and study.released_at is not None:
            gap_s = now - study.released_at
            if gap_s <= self._gap_max_s:
                study.gap_s = max(study.gap_s, gap_s)

    def _note_return(self, study: _Study, uid: str, bringer: _Association, *, now: float) -> None:
        """Note how long an association was away from a study that it now goes on with."""
        if bringer.at not in ("", uid) and uid in bringer.studies:
            away_s = now - study.last_image_at
            if away_s <= self._gap_max_s:
                study.return_s = max(study.return_s, away_s)

    def _form_habit(self, study: _Study) -> None:
        sender = study.calling_ae_title
        before = self._habits.pop(sender, _Habit())
        self._habits[sender] = _Habit(
            max(study.gap_s, GAP_FADES * before.gap_s), max(study.return_s, GAP_FADES * before.return_s)
        )
        while len(self._habits) > REMEMBERED:
            self._habits.popitem(last=False)
