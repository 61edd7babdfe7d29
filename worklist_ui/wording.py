"""How the pages say things: states, names, ages, times, volumes.

Text from headers is hostile until it went through here.

Jinja escapes HTML; this takes out what escaping leaves: control characters, marks that turn the direction of writing,
and names without end.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache

from markupsafe import Markup, escape

from triage.ledger.feedback import Disagreement
from triage.ledger.reading import Entry
from triage.ledger.reconciliation import GapState
from triage.study import REASON_TEXT, PatientHeader, StudyState

DAYS = {"D": 1, "W": 7, "M": 30, "Y": 365}  # of the units of an AS value, near enough to sort by
LONGEST_TEXT = 80  # characters shown of any header value; DICOM's own limit for a name component group is 64


class Standing(StrEnum):
    """The one state in which a study stands on the list."""

    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    NOT_ANALYSED = "not_analysed"
    FAILED = "failed"
    RUNNING = "running"
    QUEUED = "queued"
    RECEIVING = "receiving"


@dataclass(frozen=True)
class Wording:
    """What a standing is called and the sign beside it, so that colour is never the only one."""

    text: str
    sign: str


STANDINGS: dict[Standing, Wording] = {
    Standing.FLAGGED: Wording("Flagged", "▲"),
    Standing.NOT_FLAGGED: Wording("Not flagged", "○"),
    Standing.NOT_ANALYSED: Wording("Not analysed", "–"),
    Standing.FAILED: Wording("Failed", "✕"),
    Standing.RUNNING: Wording("Running", "◐"),
    Standing.QUEUED: Wording("Queued", "⋯"),
    Standing.RECEIVING: Wording("Receiving", "↓"),
}

EVENTS = {
    "first_image": "First image received",
    "complete": "Complete",
    "reopened": "Opened again by a late image",
    "started": "Analysis started",
    "given_back": "Analysis put off",
    "queued_again": "Sent to the model again",
    "flagged": "Flagged",
    "not_flagged": "Not flagged",
    "not_analysed": "Not analysed",
    "failed": "Analysis failed",
    "conflict": "Conflicting image kept apart",
    "claimed": "Claimed",
    "released": "Released",
    "claim_lapsed": "Claim lapsed",
    "reassigned": "Reassigned",
    "opened": "Opened",
    "retrieved": "Images given to a program",
    "read": "Marked as read",
    "read_undone": "Marked as unread",
    "agreed": "Agreed with the model",
    "disagreed": "Disagreed with the model",
    "opinion_withdrawn": "Withdrew the opinion",
}

DISAGREEMENTS = {
    Disagreement.ARTEFACT: "Artefact",
    Disagreement.CALCIFICATION: "Calcification",
    Disagreement.POST_OPERATIVE: "Post-operative",
    Disagreement.TUMOUR: "Tumour",
    Disagreement.CHRONIC: "Chronic",
    Disagreement.MISSED_BLEED: "Missed bleed",
    Disagreement.OTHER: "Other",
}

GAPS = {
    GapState.ARRIVING: "Arriving now",
    GapState.MISSING: "Missing, not fetched",
    GapState.FETCH_FAILED: "Could not be fetched yet",
    GapState.GIVEN_UP: "Given up: a person must look",
}

COMPLETED_BY = {
    "geometry": "by its geometry",
    "counts": "by its counts",
    "silence": "after silence",
    "cap": "after the longest wait",
}


def standing_of(entry: Entry) -> Standing:
    """Give the one standing of a study: its analysis's outcome, or how far it has come."""
    if entry.study.state is StudyState.ANALYSED:
        return Standing.FLAGGED if entry.flagged else Standing.NOT_FLAGGED
    return Standing(entry.study.state.value)


def standing_detail(entry: Entry) -> str:
    """Say why a study was not analysed, failed or waits, with what was measured."""
    study = entry.study
    if study.state is StudyState.NOT_ANALYSED and study.reason is not None:
        return f"{REASON_TEXT[study.reason]}: {clean(study.detail, 300)}" if study.detail else REASON_TEXT[study.reason]
    if study.state is StudyState.FAILED:
        return clean(study.detail, 300)
    if entry.given_back:
        return "Waits for the model" if study.state is StudyState.QUEUED else ""
    if entry.urgent and not entry.flagged:
        return "Flagged before; see its earlier analyses"
    return ""


def clean(text: str | None, longest: int = LONGEST_TEXT) -> str:
    """Give header text without control characters and direction marks, and not longer than fits."""
    kept = "".join(" " if _is_hidden(character) else character for character in (text or "")[: longest * 4])
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


@lru_cache(maxsize=65_536)  # searching and sorting ask for the same names again and again
def person(name: str) -> str:
    """Give a PN value (PS3.5 6.2.1.2) as it is read: family name, given names."""
    group = next((part for part in clean(name, 200).split("=") if part.strip("^ ")), "")
    family, _, given = group.partition("^")
    rest = " ".join(part for part in given.split("^")[:2] if part)
    return clean(", ".join(part for part in (family.strip(), rest.strip()) if part)) or "(no name)"


def age_sex(header: PatientHeader) -> str:
    """Give age and sex as in "69 y F"."""
    return " ".join(part for part in (_age(header), clean(header.patient_sex, 8)) if part)


def days_old(header: PatientHeader) -> int | None:
    """Give the age in days, as far as the header tells, to sort by; None where it does not."""
    text = header.patient_age.strip()
    if _is_age(text):
        return int(text[:3]) * DAYS[text[3]]
    born, examined = _date(header.patient_birth_date), _date(header.study_date)
    return None if born is None or examined is None or examined < born else (examined - born).days


def duration(seconds: float | None) -> str:
    """Give a length of time in the unit that a reader thinks in."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def moment(at: float | None) -> str:
    """Give a time of day with its date, UTC, in ISO 8601: what the page's script turns into local time."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock_time(at: float | None) -> str:
    """Give a time for people, UTC; the page's script shows local time in its place."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%d %b %H:%M:%S")


def percent(probability: float | None) -> str:
    """Give a probability as whole percent, never rounded to certainty."""
    if probability is None:
        return ""
    if probability < 0.01:
        return "<1 %"
    return ">99 %" if probability > 0.99 else f"{probability * 100:.0f} %"


def millilitres(volume_ml: float | None) -> str:
    """Give a volume in mL with one decimal."""
    return "" if volume_ml is None else f"{volume_ml:.1f} mL"


def gigabytes(size_bytes: int) -> str:
    """Give a size in GB with one decimal."""
    return f"{size_bytes / 1e9:.1f} GB"


def coded(text: str) -> Markup:
    """Give a text of ours with its `words between backticks` set as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _age(header: PatientHeader) -> str:
    text = header.patient_age.strip()
    if _is_age(text):
        return f"{int(text[:3])} {text[3].lower()}"
    born, examined = _date(header.patient_birth_date), _date(header.study_date)
    if born is None or examined is None or examined < born:
        return ""
    years = examined.year - born.year - ((examined.month, examined.day) < (born.month, born.day))
    return f"{years} y"


def _is_age(text: str) -> bool:
    """Say whether a text is an AS value (PS3.5 6.2)."""
    return len(text) == 4 and text[:3].isdecimal() and text[3] in DAYS


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text.strip(), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
