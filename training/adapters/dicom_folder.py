"""DICOM files of a folder as volumes: the series that a set means, and its volume in HU."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from training.scan_faults import BadScan, ScanFault, bad_series
from triage.ct_series import MAX_TILT_DEGREES, SeriesHeader, read_series, read_volume, sort_slices, tilt_degrees
from triage.errors import UnreadableInstance, UnsuitableSeries
from triage.header_values import text
from triage.volume import Volume

SLAB_MM = 5.0  # what readers look at, and the grid of the model
MIN_SLICES = 12  # the worker reads no shorter series
BONE = re.compile(r"bone|ear|sinus", re.IGNORECASE)
CONTRAST = re.compile(r"contrast|post|angio|\bcta\b|perf|scout|topo", re.IGNORECASE)
PLAIN = re.compile(r"plain|without|pre|non", re.IGNORECASE)


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, known by their headers alone."""

    series_instance_uid: str
    patient_id: str
    paths: tuple[Path, ...]


@contextmanager
def lenient() -> Iterator[None]:
    """Read what is there: published sets replace UIDs by identifiers that are none, in each of 750,000 images."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def files_below(folder: Path) -> list[Path]:
    """Give all files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def headers_of(name: str, paths: Iterable[Path]) -> list[SeriesHeader]:
    """Read the series of some files.

    Raises:
        BadScan: a file is no DICOM.
    """
    try:
        with lenient():
            return read_series(paths)
    except UnreadableInstance as error:
        raise BadScan(name, ScanFault.UNDECODABLE, str(error)) from error


def volume_of(name: str, header: SeriesHeader) -> Volume:
    """Give the volume of a series.

    Raises:
        BadScan: `triage` refuses it; with its reason.
    """
    try:
        return read_volume(header)
    except UnsuitableSeries as refused:
        raise bad_series(name, refused) from refused


def plain_brain(name: str, series: Sequence[SeriesHeader]) -> SeriesHeader:
    """Choose the axial series without contrast whose slices are nearest to 5 mm.

    Raises:
        BadScan: there is none; says what the last of them lacked.
    """
    distances: dict[str, tuple[float, SeriesHeader]] = {}
    lacking = "no CT series"
    for header in series:
        try:
            distances[header.series_instance_uid] = (_distance_mm(header), header)
        except UnsuitableSeries as refused:
            lacking = refused.measured
        except _NotPlain as found:
            lacking = str(found)
    if not distances:
        raise BadScan(name, ScanFault.GEOMETRY, f"no plain axial series among {len(series)}: {lacking}")
    return min(distances.values(), key=lambda item: item[0])[1]


def group_series(paths: Iterable[Path], read: Callable[[Path], tuple[str, str]]) -> Mapping[str, SeriesFiles]:
    """Group files by series.

    Args:
        paths: of the files.
        read: gives (Series Instance UID, Patient ID) of a file.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    patients: dict[str, str] = {}
    for path in paths:
        uid, patients[uid] = read(path)
        found[uid].append(path)
    return {uid: SeriesFiles(uid, patients[uid], tuple(files)) for uid, files in found.items()}


def pseudonym_of(ds: Dataset) -> str:
    """Give a patient's key that names nobody: the same for every source of a site's own images."""
    identity = f"{text(ds, 'IssuerOfPatientID')}|{text(ds, 'PatientID')}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


class _NotPlain(Exception):
    pass


def _distance_mm(header: SeriesHeader) -> float:
    """Give how far a series' slices are from 5 mm; raises where it is no plain axial CT."""
    if header.modality != "CT" or header.is_localizer:
        raise _NotPlain(f"modality {header.modality or 'absent'}" if header.modality != "CT" else "a localizer")
    words = f"{header.description} {header.slices[0].path.parent.name}"
    contrast = CONTRAST.search(words) and not PLAIN.search(words)
    if BONE.search(words) or contrast or header.contrast_agent:
        raise _NotPlain("named as bone or contrast")
    if len(header.slices) < MIN_SLICES:
        raise _NotPlain(f"{len(header.slices)} slices; expected at least {MIN_SLICES}")
    if tilt_degrees(header) > MAX_TILT_DEGREES:
        raise _NotPlain(f"{tilt_degrees(header):.0f} degrees from axial")
    return abs(sort_slices(header)[1] - SLAB_MM)
