"""What a training run is made of: one TOML file, read into frozen values; an unknown key is an error."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from training.patients import FOLDS
from training.source_settings import (
    BhsdSource,
    Cq500Source,
    CtIchNiftiSource,
    InstanceSource,
    OpinionsSource,
    RsnaSource,
    SegSource,
)
from triage.errors import ConfigError
from triage.volume import Grid

Checked = TypeVar("Checked", bound=BaseModel)


class GridSettings(BaseModel, frozen=True, extra="forbid"):
    """The grid that the model reads."""

    rows: int = Field(default=192, gt=0)
    columns: int = Field(default=192, gt=0)
    spacing_mm: tuple[float, float, float] = (5.0, 1.25, 1.25)  # (z, y, x)

    @property
    def grid(self) -> Grid:
        """The same as the type of `triage`."""
        return Grid(self.rows, self.columns, self.spacing_mm)


class NetworkSettings(BaseModel, frozen=True, extra="forbid"):
    """Size of the U-Net."""

    widths: tuple[int, ...] = (24, 48, 96, 128)  # channels at 1/2, 1/4, 1/8, ... of the grid
    context: int = Field(default=1, ge=0)  # neighbouring slabs on each side
    windows_hu: tuple[tuple[float, float], ...] = (
        (0, 80),
        (-20, 180),
        (-200, 1000),
    )  # brain, subdural, bone: low, high


class CtIchSource(BaseModel, frozen=True, extra="forbid"):
    """The images and masks of ct-ich."""

    kind: Literal["ct-ich"] = "ct-ich"
    folder: Path
    folds: tuple[int, ...] = (1, 2, 3, 4)
    bleed_weight: float = Field(
        default=1.0, ge=0
    )  # share of a batch from scans with blood, against the other sources' weights
    free_weight: float = Field(default=1.0, ge=0)  # share of a batch from bleed-free scans


class PastedSource(BaseModel, frozen=True, extra="forbid"):
    """Blood pasted into the bleed-free heads of ct-ich."""

    kind: Literal["pasted"] = "pasted"
    folder: Path
    folds: tuple[int, ...] = (1, 2, 3, 4)
    copies: int = Field(default=8, gt=0)  # bleeds pasted into each head, one at a time
    bleed_ml: tuple[float, float] = (0.7, 60.0)
    seed: int = 1
    bleed_weight: float = Field(default=1.0, ge=0)
    free_weight: float = Field(default=0.0, ge=0)


class PhantomSource(BaseModel, frozen=True, extra="forbid"):
    """Drawn heads."""

    kind: Literal["phantom"] = "phantom"
    count: int = Field(default=200, gt=0)
    bleed_share: float = Field(default=0.6, ge=0, le=1)
    bleed_ml: tuple[float, float] = (1.0, 60.0)
    size: int = Field(default=192, gt=0)  # pixels a side; the model's grid is coarser than a scanner's
    slices: int = Field(default=32, gt=0)
    seed: int = 1
    bleed_weight: float = Field(default=1.0, ge=0)
    free_weight: float = Field(default=1.0, ge=0)


AnySource = (
    CtIchSource
    | PastedSource
    | PhantomSource
    | CtIchNiftiSource
    | RsnaSource
    | Cq500Source
    | InstanceSource
    | BhsdSource
    | SegSource
    | OpinionsSource
)
SourceSettings = Annotated[AnySource, Field(discriminator="kind")]


class AugmentationSettings(BaseModel, frozen=True, extra="forbid"):
    """What is changed at random in every slab that is shown; 0 switches a change off."""

    flip: bool = True  # left and right
    rotation_deg: float = Field(default=15.0, ge=0)  # standard deviation
    scale: float = Field(default=0.08, ge=0)  # standard deviation of the factor
    shift_mm: float = Field(default=6.0, ge=0)
    gain: float = Field(default=0.03, ge=0)  # standard deviation of the factor on HU
    offset_hu: float = Field(default=2.5, ge=0)
    noise_hu: float = Field(default=4.0, ge=0)  # largest standard deviation of added noise
    blur: float = Field(default=0.3, ge=0, le=1)  # share of slabs blurred by 3 x 3
    elastic_mm: float = Field(default=0.0, ge=0)  # standard deviation of a smooth displacement
    kernel: float = Field(default=0.0, ge=0, le=1)  # share of slabs made softer or sharper
    window: float = Field(default=0.0, ge=0)  # standard deviation of the contrast's factor about 40 HU
    thickness: float = Field(default=0.0, ge=0, le=1)  # largest share mixed in from the neighbouring slabs
    streaks_hu: float = Field(default=0.0, ge=0)  # largest height of streaks as of metal
    mix_up: float = Field(default=0.0, ge=0, le=1)  # share of slabs laid over another one of the batch


class OptimiserSettings(BaseModel, frozen=True, extra="forbid"):
    """How the weights move; the global batch is divided among the replicas."""

    steps: int = Field(default=4000, gt=0)
    batch: int = Field(default=16, gt=0)  # slabs a step, all replicas together
    learning_rate: float = Field(default=2e-3, gt=0)  # highest, reached after the warm-up, then a cosine to 1 % of it
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    dice_weight: float = Field(default=1.0, ge=0)
    slab_dice_weight: float = Field(default=0.0, ge=0)  # of each slab's Dice, where thin bleeds count like large ones
    cross_entropy_weight: float = Field(default=2.0, ge=0)
    weak_weight: float = Field(default=0.3, ge=0)  # of labels by slice and by study, where sources have no masks
    crop: tuple[int, int] = (176, 160)  # rows and columns shown in training, from the middle of the grid


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """How the processes of a run on several hosts find each other; only for `strategy = "multi_worker"`."""

    found_by: Literal["tf_config", "slurm", "kubernetes"] = "tf_config"
    port: int = Field(default=8888, gt=0, le=65535)  # of Slurm's tasks, counted up on each host, and of pods
    pods: str = "job-name=ich-triage-train"  # label selector of the pods that are workers
    wait_s: float = Field(default=600.0, gt=0)  # for all workers to come
    lost_after_s: float = Field(default=10.0, ge=1)  # without a sign of life a worker is lost, and the run ends


class TrackingSettings(BaseModel, frozen=True, extra="forbid"):
    """Where runs are tracked with MLflow."""

    on: bool = True
    uri: str | None = None  # of a server; unset: mlflow.db beside the run's folder
    experiment: str = "ich-triage"


class RunSettings(BaseModel, frozen=True, extra="forbid"):
    """One training run."""

    name: str = "ich_unet"
    seed: int = 1
    folder: Path  # checkpoints, shards and TensorBoard's events; made where it is missing
    shards: Path | None = None  # converted data, may be shared between runs; default: `shards` in the run's folder
    warm_start: Path | None = None  # a run's checkpoints or a published version, whose weights this run begins with
    warm_start_widths: tuple[int, ...] | None = None  # of the network there, where it is narrower and to be widened
    steps_per_round: int = Field(default=200, gt=0)  # a round ends with a checkpoint
    rounds_per_validation: int = Field(default=3, gt=0)
    threads: int = Field(default=0, ge=0)  # of TensorFlow's kernels; 0: as many as there are cores
    strategy: Literal["one", "mirrored", "multi_worker"] = "one"
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"  # that layers compute in
    xla: bool = False  # compiles the step
    profiled_steps: int = Field(default=3, ge=0)  # traced for TensorBoard's profiler, soon after the start
    grid: GridSettings = GridSettings()
    network: NetworkSettings = NetworkSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    cluster: ClusterSettings = ClusterSettings()
    tracking: TrackingSettings = TrackingSettings()
    source: tuple[SourceSettings, ...] = Field(min_length=1)
    validation: tuple[SourceSettings, ...] = ()  # patients that choose calibration and operating point
    test: tuple[SourceSettings, ...] = ()  # patients that only score what is published

    @property
    def shards_folder(self) -> Path:
        """Where the converted data lies."""
        return self.shards or self.folder / "shards"


def read_settings(path: Path) -> RunSettings:
    """Read a run's TOML file.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a wrong value; each is named.
    """
    return checked_settings(read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as it is.

    Raises:
        ConfigError: there is no such file, or it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The configuration {path} is no TOML: {error}.") from error


def checked_settings(values: dict[str, Any], path: Path) -> RunSettings:
    """Give the settings of a run from what its file said.

    Raises:
        ConfigError: an unknown key or a wrong value; each is named.
    """
    return checked_toml(RunSettings, values, path)


def checked_toml(model: type[Checked], values: dict[str, Any], path: Path) -> Checked:
    """Check what a file said against a model.

    Raises:
        ConfigError: an unknown key or a wrong value; each is named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"The configuration {path} is wrong. " + "; ".join(_faults(error, model))) from error


def source_at(kind: str, folder: Path) -> SourceSettings:
    """Give the source of a kind that lies in a folder, with all its folds.

    Raises:
        ConfigError: there is no such kind.
    """
    kinds = {source.model_fields["kind"].default: source for source in get_args(AnySource)}
    found = [name for name, source in kinds.items() if "folder" in source.model_fields and name != "pasted"]
    if kind not in found:
        raise ConfigError(f"{kind} is no kind of source; known are {', '.join(found)}.")
    source: SourceSettings = kinds[kind](folder=folder, folds=tuple(range(FOLDS)))
    return source


DRAWING = 3  # counts up when phantoms or pasted blood come out differently: converted ones are then made anew


def source_key(source: SourceSettings, grid: GridSettings) -> str:
    """Give the name under which the converted scans of a source lie: the same for the same scans and grid."""
    content = source.model_dump_json(exclude={"bleed_weight", "free_weight"}) + grid.model_dump_json()
    if not isinstance(source, CtIchSource):
        content += str(DRAWING)
    return f"{source.kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            faults.append(f"Unknown key {key}; known are {', '.join(_known_keys(fault['loc'], model))}")
        else:
            faults.append(f"{key}: {fault['msg']}")
    return faults


def _known_keys(location: tuple[int | str, ...], section: type[BaseModel]) -> list[str]:
    """Give the keys of the section that a location lies in."""
    kinds: dict[str, type[BaseModel]] = {source.model_fields["kind"].default: source for source in get_args(AnySource)}
    for part in location[:-1]:
        if part in kinds:
            section = kinds[str(part)]
        elif isinstance(part, str) and part in section.model_fields:
            annotation = section.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
    return sorted(section.model_fields)
