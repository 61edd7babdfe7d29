"""The path of one study, from its images to what the model says of it: select, build, predict, find."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inference.select_series import Selection, select_series
from triage.ct_series import read_series, read_volume
from triage.errors import ServingError, UnreadableInstance, UnsuitableSeries
from triage.finding import Finding, ModelSpec, SeriesChoice
from triage.probability_map import ProbabilityMap, map_of
from triage.reading import read_maps
from triage.study import NotAnalysedReason
from triage.volume import Volume, head_extent_mm, slabs_of, with_context

HEAD_EXTENT_MM = (80.0, 300.0)  # across an infant's head; along an adult's with holder and pillow. A chest is wider


class Network(Protocol):
    """What reads slabs: the TF Serving client, or in a test a function of HU."""

    def spec(self) -> tuple[ModelSpec, int]:
        """Give the served model's description and version."""
        ...

    def predict(self, hu: npt.NDArray[np.int16], *, spec: ModelSpec, version: int) -> npt.NDArray[np.float32]:
        """Give (N, Y, X) float32 probability for (N, Y, X, C) int16 HU, all by one version."""
        ...


@dataclass(frozen=True)
class Refusal:
    """The model must not read this study: a result, with what was measured."""

    reason: NotAnalysedReason
    measured: str
    series_choices: tuple[SeriesChoice, ...] = ()


@dataclass
class Stopwatch:
    """Seconds by step, and a call between steps (the worker holds its lease there)."""

    between: Callable[[], None] = lambda: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step under its name."""
        self.between()
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 4)


def read_study(
    paths: Iterable[Path],
    network: Network,
    watch: Stopwatch | None = None,
    *,
    keep_map: Callable[[ProbabilityMap], str] | None = None,
) -> Finding | Refusal:
    """Read one study.

    Args:
        paths: its instances' files, all of them, in any order.
        network: what reads slabs.
        watch: where the seconds of each step go.
        keep_map: keeps the probability map for research and gives its path; None: it is thrown away.

    Returns:
        What the model says, or why it must not read this study.

    Raises:
        ServingError: the endpoint refused or failed; `ServingUnavailable` if it may answer later.
    """
    watch = watch or Stopwatch()
    spec, version = network.spec()
    with watch.step("select"):
        selection = _selected(paths, spec)
    if selection.series is None:
        return Refusal(selection.reason or NotAnalysedReason.NOT_CT, selection.measured, selection.choices)
    try:
        with watch.step("build"):
            volume = read_volume(selection.series)
            _check_head(volume)
            slabs = slabs_of(volume, spec.grid)
    except UnsuitableSeries as refusal:
        return Refusal(refusal.reason, refusal.measured, _refused(selection, refusal))
    with watch.step("predict"):
        probability = network.predict(with_context(slabs.hu, spec.context), spec=spec, version=version)
        _check_maps(probability, slabs.hu.shape)
    with watch.step("find"):
        reading = read_maps(probability, slabs.spacing_mm, spec)
    kept_at = keep_map(map_of(probability, volume, slabs)) if keep_map else ""
    return Finding(
        flagged=reading.flagged,
        probability=reading.probability,
        volume_ml=reading.volume_ml,
        components=reading.components,
        key_slabs=reading.key_slabs,
        model_name=spec.name,
        model_version=version,
        operating_point=spec.operating_point,
        series_instance_uid=selection.series.series_instance_uid,
        series_choices=selection.choices,
        slab_count=len(slabs.hu),
        seconds=watch.seconds,
        map_path=kept_at,
    )


def _selected(paths: Iterable[Path], spec: ModelSpec) -> Selection:
    try:
        return select_series(read_series(paths), spec)
    except UnreadableInstance as error:
        return Selection(None, (), NotAnalysedReason.CANNOT_DECODE, str(error))


def _check_head(volume: Volume) -> None:
    """Refuse what is named a head and is none by its size."""
    least, most = HEAD_EXTENT_MM
    extent_mm = head_extent_mm(volume)
    if min(extent_mm) < least or max(extent_mm) > most:
        raise UnsuitableSeries(
            NotAnalysedReason.NOT_HEAD,
            f"{extent_mm[0]:.0f} x {extent_mm[1]:.0f} mm across; expected {least:.0f} to {most:.0f} mm",
        )


def _check_maps(probability: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if probability.shape != shape:
        raise ServingError(f"the model gave maps of shape {probability.shape}; expected {shape}")


def _refused(selection: Selection, refusal: UnsuitableSeries) -> tuple[SeriesChoice, ...]:
    """Mark the chosen series with the reason that was found in its pixels."""
    return tuple(
        SeriesChoice(
            series_instance_uid=choice.series_instance_uid,
            series_number=choice.series_number,
            description=choice.description,
            slices=choice.slices,
            chosen=False,
            reason=refusal.reason,
            measured=refusal.measured,
        )
        if choice.chosen
        else choice
        for choice in selection.choices
    )
