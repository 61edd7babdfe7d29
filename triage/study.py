"""Study, series and instance, the states a study passes through, and why one is not analysed.

Terms after PS3.3 A.1.2 (study, series, instance). All times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class StudyState(StrEnum):
    """Where a study stands between its first image and its result; each study is in exactly one."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    RUNNING = "running"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not_analysed"
    FAILED = "failed"


NEXT_STATES: dict[StudyState, frozenset[StudyState]] = {
    # A late image takes a study back to RECEIVING from anywhere; QUEUED again is a retry or a lapsed lease.
    StudyState.RECEIVING: frozenset({StudyState.QUEUED}),
    StudyState.QUEUED: frozenset({StudyState.RUNNING, StudyState.RECEIVING}),
    StudyState.RUNNING: frozenset(
        {
            StudyState.ANALYSED,
            StudyState.NOT_ANALYSED,
            StudyState.FAILED,
            StudyState.QUEUED,
            StudyState.RECEIVING,
        }
    ),
    StudyState.ANALYSED: frozenset({StudyState.RECEIVING, StudyState.QUEUED}),
    StudyState.NOT_ANALYSED: frozenset({StudyState.RECEIVING, StudyState.QUEUED}),
    StudyState.FAILED: frozenset({StudyState.RECEIVING, StudyState.QUEUED}),
}

FINAL_STATES = frozenset({StudyState.ANALYSED, StudyState.NOT_ANALYSED, StudyState.FAILED})


class ReadingState(StrEnum):
    """What the radiologist has done with a study, separate from its analysis."""

    UNREAD = "unread"
    CLAIMED = "claimed"
    READ = "read"


class NotAnalysedReason(StrEnum):
    """Why the model did not read a study or series: a closed list, each shown with its measured value."""

    NOT_CT = "not_ct"
    NOT_HEAD = "not_head"
    LOCALIZER = "localizer"
    DERIVED = "derived"
    NOT_AXIAL = "not_axial"
    CONTRAST = "contrast"
    BONE_KERNEL = "bone_kernel"
    TOO_FEW_SLICES = "too_few_slices"
    SHORT_COVERAGE = "short_coverage"
    UNEVEN_GAPS = "uneven_gaps"
    SEVERAL_ORIENTATIONS = "several_orientations"
    NO_GEOMETRY = "no_geometry"
    NO_HU = "no_hu"
    CANNOT_DECODE = "cannot_decode"


REASON_TEXT: dict[NotAnalysedReason, str] = {
    NotAnalysedReason.NOT_CT: "No CT image",
    NotAnalysedReason.NOT_HEAD: "Not a head",
    NotAnalysedReason.LOCALIZER: "Localizer only",
    NotAnalysedReason.DERIVED: "Derived or secondary images only",
    NotAnalysedReason.NOT_AXIAL: "No axial series",
    NotAnalysedReason.CONTRAST: "Contrast given",
    NotAnalysedReason.BONE_KERNEL: "Bone kernel only",
    NotAnalysedReason.TOO_FEW_SLICES: "Too few slices",
    NotAnalysedReason.SHORT_COVERAGE: "Head not covered",
    NotAnalysedReason.UNEVEN_GAPS: "Uneven slice gaps",
    NotAnalysedReason.SEVERAL_ORIENTATIONS: "Orientation changes within the series",
    NotAnalysedReason.NO_GEOMETRY: "No slice positions",
    NotAnalysedReason.NO_HU: "No Hounsfield units",
    NotAnalysedReason.CANNOT_DECODE: "Images cannot be decoded",
}


@dataclass(frozen=True)
class Instance:
    """One SOP Instance as it was received; geometry is None where the header has none."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path  # below the storage folder
    size_bytes: int
    blake3: str  # hex, of the data set's bytes as received
    received_at: float
    calling_ae_title: str = ""
    called_ae_title: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    series_number: int | None = None
    series_description: str = ""
    instance_number: int | None = None
    image_position_mm: tuple[float, float, float] | None = None  # PS3.3 C.7.6.2.1.1, LPS
    image_orientation: tuple[float, ...] | None = None  # six direction cosines, row then column
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int = 1


@dataclass(frozen=True)
class PatientHeader:
    """What the reading list shows of patient and study, as text, decoded as well as can be."""

    patient_name: str = ""
    patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    accession_number: str = ""
    study_description: str = ""
    study_date: str = ""
    study_time: str = ""
    body_part_examined: str = ""
    institution_name: str = ""
    referring_physician_name: str = ""


@dataclass(frozen=True)
class Study:
    """One row of the ledger: a study and where it stands."""

    study_id: int  # ours, opaque; the only name of a study in logs and addresses
    study_instance_uid: str
    state: StudyState
    revision: int  # counts up when late images re-open the study; a finding belongs to one revision
    header: PatientHeader
    instance_count: int
    first_image_at: float
    last_image_at: float
    calling_ae_title: str = ""
    priority: str = "routine"  # or "stat"
    reason: NotAnalysedReason | None = None
    detail: str = ""  # the measured value of a refusal, or the cause of a failure
    partial: bool = False  # went on after the cap on waiting, without evidence that it is complete
    completed_by: str = ""  # the evidence: "geometry", "counts", "silence", "cap"
    complete_at: float | None = None
    queued_at: float | None = None
    started_at: float | None = None
    found_at: float | None = None
    shown_at: float | None = None
    opened_at: float | None = None
    read_at: float | None = None
    attempts: int = 0
    flag_raised_at: float | None = None  # first flag ever; a later analysis never takes it away silently
    reading_state: ReadingState = ReadingState.UNREAD
    claimed_by: str = ""
    claimed_at: float | None = None
    read_by: str = ""


@dataclass(frozen=True)
class Claim:
    """A worker's lease on one study: void once it has expired or `fence` has moved on."""

    study: Study
    owner: str
    fence: int
    expires_at: float
