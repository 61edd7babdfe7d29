"""The columns of the list: what each is called, what it is sorted by, and which a reader has chosen.

State, patient and reader cannot be taken away: a flag, the way to the study and its steps stand in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from triage.ledger.reading import Entry
from worklist_ui.wording import Standing, clean, days_old, person, standing_of

Value = Callable[[Entry, float], Any]  # of an entry, at a moment


@dataclass(frozen=True)
class Column:
    """One column; `value` is what it is sorted by, and studies without one come last in both directions."""

    title: str
    value: Value
    right: bool = False  # numbers stand at the right


@lru_cache(maxsize=65_536)  # sorting asks for the same words again and again
def _text(text: str) -> str:
    return clean(text).casefold()


COLUMNS: dict[str, Column] = {
    "state": Column("State", lambda entry, _: list(Standing).index(standing_of(entry))),
    "priority": Column("Priority", lambda entry, _: 0 if entry.study.priority == "stat" else 1),
    "patient": Column("Patient", lambda entry, _: _text(person(entry.study.header.patient_name))),
    "patient_id": Column("Patient ID", lambda entry, _: _text(entry.study.header.patient_id)),
    "age": Column("Age, sex", lambda entry, _: days_old(entry.study.header)),
    "study": Column("Study", lambda entry, _: _text(entry.study.header.study_description)),
    "accession": Column("Accession", lambda entry, _: _text(entry.study.header.accession_number)),
    "from": Column("From", lambda entry, _: _text(entry.study.calling_ae_title)),
    "images": Column("Images", lambda entry, _: entry.study.instance_count, right=True),
    "arrival": Column("Arrived", lambda entry, _: entry.study.first_image_at),
    "waiting": Column("Waiting", lambda entry, now: waited_s(entry, now)),
    "probability": Column("Probability", lambda entry, _: entry.probability, right=True),
    "volume": Column("Volume", lambda entry, _: entry.volume_ml if entry.flagged else None, right=True),
    "model": Column("Model", lambda entry, _: (entry.model_name, entry.model_version) if entry.model_name else None),
    "reader": Column("Reader", lambda entry, _: entry.study.claimed_by or entry.study.read_by or None, right=True),
}
DEFAULT = ("state", "patient", "study", "from", "arrival", "probability", "volume", "reader")
FIXED = ("state", "patient", "reader")


def waited_s(entry: Entry, now: float) -> float:
    """Give how long a study has waited for a reader, or did wait until it was read."""
    until = entry.study.read_at if entry.is_read and entry.study.read_at is not None else now
    return max(0.0, until - entry.study.first_image_at)


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Give the columns that were asked for, in that order: each once, known ones only, the fixed ones always.

    Empty where nothing known was asked for.
    """
    known = tuple(dict.fromkeys(name for name in names if name in COLUMNS))
    if not known:
        return ()
    first = tuple(name for name in ("state", "patient") if name not in known)
    return (*first, *known, *(() if "reader" in known else ("reader",)))


def offered(shown: tuple[str, ...]) -> tuple[str, ...]:
    """Give all columns: those shown in their order, and each other one behind the one that usually stands before it."""
    order = list(shown)
    usual = list(COLUMNS)
    for index, name in enumerate(usual):
        if name not in order:
            order.insert(order.index(usual[index - 1]) + 1, name)
    return tuple(order)
