"""What the API is asked and answers: its contract, from which the OpenAPI document is made.

A released field is never renamed or taken away; new ones may come, so a program must leave alone what it does not know.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from triage.ledger.feedback import LONGEST_NOTE, Disagreement
from triage.study import NotAnalysedReason, ReadingState, StudyState
from worklist_ui.list_page import LAST_PAGE, LONGEST_SEARCH
from worklist_ui.wording import Standing

# JSON has one kind of number: 2.0 is as whole as 2, also where text is not taken for a number.
Whole = Annotated[
    int, BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
]
Probability = Annotated[float, Field(ge=0, le=1)]


class View(StrEnum):
    """Which part of the list."""

    OPEN = "open"
    MINE = "mine"
    HISTORY = "history"
    ALL = "all"


class Sort(StrEnum):
    """What the list is sorted by instead of the reading order."""

    STATE = "state"
    PRIORITY = "priority"
    PATIENT = "patient"
    PATIENT_ID = "patient_id"
    AGE = "age"
    STUDY = "study"
    ACCESSION = "accession"
    FROM = "from"
    IMAGES = "images"
    ARRIVAL = "arrival"
    WAITING = "waiting"
    PROBABILITY = "probability"
    VOLUME = "volume"
    MODEL = "model"
    READER = "reader"


class Asked(BaseModel):
    """What a program sends; a name that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answered(BaseModel):
    """What a program gets."""

    model_config = ConfigDict(frozen=True)


class StudyQuery(Asked):
    """Which studies, in which order, and which page of them."""

    view: View = Field(default=View.OPEN, description="Which part of the list.")
    state: Standing | None = Field(default=None, description="Only studies in this state.")
    q: str = Field(
        default="", max_length=LONGEST_SEARCH,
        description="Words that must all stand in name, ID, accession number, description, sender or reader.",
    )  # fmt: skip
    sort: Sort | None = Field(default=None, description="A column; without it, the reading order.")
    descending: bool = Field(default=False, description="The other way round; only with `sort`.")
    page: int = Field(default=1, ge=1, le=LAST_PAGE, description="From 1.")
    limit: int = Field(default=100, ge=1, le=500, description="Studies on a page.")


class ChangesQuery(Asked):
    """From where on."""

    after: int = Field(default=0, ge=0, le=2**62, description="The last change that is known; 0: everything.")


class Seen(Asked):
    """What the reader saw when deciding."""

    revision: Whole = Field(ge=1, le=2**31, description="Of the study; images that came since void the step.")


class FeedbackGiven(Seen):
    """Whether the reader agrees with the model."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"agrees": {"const": True}}},
            "then": {"properties": {"reason": {"type": "null"}}},
            "else": {"properties": {"reason": {"type": "string"}}, "required": ["reason"]},
        }
    )

    agrees: bool
    reason: Disagreement | None = Field(default=None, description="Why not; only and always with `agrees: false`.")
    note: Annotated[str, StringConstraints(max_length=LONGEST_NOTE)] = ""

    @model_validator(mode="after")
    def _reason_fits(self) -> FeedbackGiven:
        if self.agrees == (self.reason is not None):
            raise ValueError("reason goes with agrees: false, and only with it")
        return self


class Patient(Answered):
    """The patient as the images' header has it; text from outside, to be escaped where it is shown."""

    name: str = Field(description="PN value, PS3.5 6.2.1.2.")
    patient_id: str
    birth_date: str = Field(description="DA value, YYYYMMDD, or empty.")
    sex: str
    age: str = Field(description="AS value, or empty.")


class StudyItem(Answered):
    """One study of the list."""

    study_id: int = Field(description="Ours, opaque; the study's name in this API.")
    study_instance_uid: str
    change: int = Field(description="Counts every write to any study; higher is newer.")
    revision: int = Field(description="Counts up when late images open the study again.")
    state: Standing
    detail: str = Field(description="Why it was not analysed or failed, with what was measured.")
    not_analysed_reason: NotAnalysedReason | None
    priority: Literal["routine", "stat"]
    patient: Patient
    accession_number: str
    description: str
    study_date: str = Field(description="DA value, YYYYMMDD, or empty.")
    calling_ae_title: str = Field(description="Which AE sent it.")
    images: int
    first_image_at: datetime
    last_image_at: datetime
    found_at: datetime | None
    flagged: bool | None = Field(description="By the current analysis; null without a finding.")
    flag_raised_at: datetime | None = Field(description="First flag ever; never taken back silently.")
    probability: Probability | None
    volume_ml: float | None
    model: str | None
    model_version: int | None
    reading_state: ReadingState
    claimed_by: str | None
    claimed_at: datetime | None
    read_by: str | None
    read_at: datetime | None


class StudyPage(Answered):
    """One page of the list."""

    studies: list[StudyItem]
    page: int
    pages: int
    found: int = Field(description="Studies that fit, on all pages.")
    received: int = Field(description="Studies ever received.")
    counts: dict[Standing, int] = Field(description="Of all studies received, by state; adds up to `received`.")
    model_away: str | None = Field(description="Why no results come just now; null: they do.")


class AnalysisItem(Answered):
    """One run of the model."""

    at: datetime
    revision: int
    outcome: StudyState
    superseded: bool
    reason: NotAnalysedReason | None
    detail: str
    flagged: bool | None
    probability: Probability | None
    volume_ml: float | None
    model: str | None
    model_version: int | None
    series_instance_uid: str | None = Field(description="The series that was read.")


class EventItem(Answered):
    """One line of a study's history."""

    at: datetime
    kind: str
    actor: str | None
    detail: str


class OpinionItem(Answered):
    """What a reader says of the current analysis."""

    reader: str
    at: datetime
    agrees: bool
    reason: Disagreement | None
    note: str


class StudyDetail(Answered):
    """One study with all that is known of it."""

    study: StudyItem
    analyses: list[AnalysisItem] = Field(description="Newest first.")
    events: list[EventItem] = Field(description="Oldest first.")
    feedback: list[OpinionItem]


class StepDone(Answered):
    """What became of a step, and the study after it."""

    answer: Literal["done", "already"] = Field(description="`already`: the same reader had done it before.")
    study: StudyItem


class Changes(Answered):
    """The data of one `studies` event: what changed since the one before."""

    change: int = Field(description="The newest change among these; the event's id.")
    studies: list[StudyItem]


class Problem(Answered):
    """Why a request was not done (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
