"""The source of what a site's own readers said of results: `opinions.jsonl` of `ich-triage opinions export`.

One study a line, with whether readers saw blood in it and where the images of the series that was read lie. A study
whose label stays open is left out. The label says nothing of where the blood is: it is one of the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from pydantic import BaseModel, ValidationError
from pydicom.errors import InvalidDicomError

from training.adapters.dicom_folder import headers_of, lenient, pseudonym_of, volume_of
from training.bleeds import BleedKind
from training.case import Case, case_of, require
from training.labelled_scan import LabelledScan, LabelStrength
from training.scan_faults import BadScan, ScanFault
from triage.errors import ConfigError

SOURCE = "opinions"
LICENCE = "the site's own"
TABLE = "opinions.jsonl"


class _Line(BaseModel, frozen=True):
    """What is read of a line; it says more, which training leaves alone."""

    study: str
    patient: str
    bleed: bool | None
    images: tuple[Path, ...]


def reader_cases(folder: Path) -> Iterator[Case]:
    """Give the studies of which readers are sure.

    Raises:
        ConfigError: the folder holds no such table, or a line of it cannot be read.
    """
    require(folder, (TABLE,), "an export of readers' opinions")
    for line in _lines(folder / TABLE):
        if line.bleed is None:
            continue
        images = [folder / image for image in line.images]
        patient = _patient(images) or line.patient
        yield case_of(line.study, patient, SOURCE, partial(_read, line.study, patient, images, line.bleed))


def _lines(path: Path) -> Iterator[_Line]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}.") from error
    for number, text in enumerate(texts, start=1):
        try:
            yield _Line.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"{path}, line {number} is no study of `ich-triage opinions export`.") from error


def _patient(images: list[Path]) -> str:
    """Give the key that the patient has in `dicom-seg` too, from an image's header; empty where none can be read."""
    for path in images[:1]:
        try:
            with lenient():
                return pseudonym_of(pydicom.dcmread(path, stop_before_pixels=True))
        except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, EOFError):
            return ""
    return ""


def _read(name: str, patient: str, images: list[Path], bleed: bool) -> LabelledScan:
    gone = sum(not path.is_file() for path in images)
    if gone or not images:
        found = f"{gone} of {len(images)} images are gone from the store"
        raise BadScan(name, ScanFault.MASK_WITHOUT_IMAGE, found)
    headers = [header for header in headers_of(name, images) if not header.is_localizer]
    if len(headers) != 1:
        raise BadScan(name, ScanFault.GEOMETRY, f"{len(headers)} kinds of image in the series; expected slices alone")
    volume = volume_of(name, headers[0])
    return LabelledScan(
        volume=volume,
        mask=np.zeros(volume.hu.shape, np.bool_),
        slice_labels=np.zeros((len(volume.hu), len(BleedKind)), np.bool_),
        patient=patient,
        source=SOURCE,
        strength=LabelStrength.STUDY,
        study_bleed=bleed,
        licence=LICENCE,
    )
