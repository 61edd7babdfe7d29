"""What the model says of a study, and the description that a served model gives of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from triage.study import NotAnalysedReason
from triage.volume import Grid


class OperatingPoint(BaseModel, frozen=True, extra="forbid"):
    """Where the line is drawn between flagged and not flagged, chosen on validation patients."""

    study_probability: float = Field(ge=0, le=1)  # at or above it the study is flagged
    voxel_probability: float = Field(gt=0, lt=1)  # at or above it a voxel counts as blood
    smallest_component_ml: float = Field(ge=0)  # smaller components do not count
    rule: str  # how it was chosen, in words


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """Platt scaling: study probability = sigmoid(slope * logit(score) + intercept).

    `score` is the mean of the highest `score_ml` millilitres of voxel probability in the study.
    """

    score_ml: float = Field(gt=0)
    slope: float = Field(gt=0)
    intercept: float


class ModelSpec(BaseModel, frozen=True, extra="forbid"):
    """What a served model says of itself: the JSON of its signature `spec`.

    The worker builds its input from nothing else, so any TF Serving that holds the model is enough.
    """

    schema_version: Literal[1] = 1
    name: str
    rows: int = Field(gt=0)
    columns: int = Field(gt=0)
    spacing_mm: tuple[float, float, float]  # (z, y, x)
    context: int = Field(ge=0)  # neighbouring slabs on each side; channels = 2 * context + 1
    input_name: str = "hu"  # (N, rows, columns, channels) int16 HU
    output_name: str = "probability"  # (N, rows, columns) float32, 0 to 1
    labels: tuple[str, ...] = ("haemorrhage",)
    operating_point: OperatingPoint
    calibration: Calibration
    training_data_sha256: str
    code_version: str

    @property
    def grid(self) -> Grid:
        """The grid that `triage.volume.slabs_of` cuts to."""
        return Grid(self.rows, self.columns, self.spacing_mm)


@dataclass(frozen=True)
class Component:
    """One connected region of suspected blood."""

    volume_ml: float
    largest_probability: float
    slab_range: tuple[int, int]  # first and last slab index


@dataclass(frozen=True)
class SeriesChoice:
    """One series of the study and why it was, or was not, the one to read."""

    series_instance_uid: str
    series_number: int | None
    description: str
    slices: int
    chosen: bool
    reason: NotAnalysedReason | None  # None for the chosen one, and for fit ones that lost to a better one
    measured: str  # what was found, in measurements


@dataclass(frozen=True)
class Finding:
    """What the model says of one study at one revision."""

    flagged: bool
    probability: float  # calibrated, of the study, 0 to 1
    volume_ml: float  # all components together
    components: tuple[Component, ...]
    key_slabs: tuple[int, ...]  # slab indices with most suspected blood, most first
    model_name: str
    model_version: int
    operating_point: OperatingPoint
    series_instance_uid: str
    series_choices: tuple[SeriesChoice, ...]
    slab_count: int
    seconds: dict[str, float]  # by step: select, build, predict, find
    map_path: str = ""  # of the probability map, below the storage folder; empty: none is kept, as outside of research
