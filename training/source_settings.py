"""The sources that are folders of published scans, as a run's configuration names them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class ScanFolder(BaseModel, frozen=True, extra="forbid"):
    """A folder of scans; its folds come from the patients' keys, so that a patient has the same one everywhere."""

    folder: Path
    folds: tuple[int, ...] = (1, 2, 3, 4)
    bleed_weight: float = Field(default=1.0, ge=0)  # share of a batch from scans with blood
    free_weight: float = Field(default=1.0, ge=0)  # share of a batch from bleed-free scans


class CtIchNiftiSource(ScanFolder, frozen=True):
    """ct-ich 1.3.1: NIfTI volumes with masks."""

    kind: Literal["ct-ich-nifti"] = "ct-ich-nifti"


class RsnaSource(ScanFolder, frozen=True):
    """RSNA 2019: DICOM slices with six labels each."""

    kind: Literal["rsna"] = "rsna"


class Cq500Source(ScanFolder, frozen=True):
    """CQ500: DICOM studies, each read by three radiologists."""

    kind: Literal["cq500"] = "cq500"


class InstanceSource(ScanFolder, frozen=True):
    """INSTANCE 2022: NIfTI volumes with masks."""

    kind: Literal["instance"] = "instance"


class BhsdSource(ScanFolder, frozen=True):
    """BHSD: NIfTI volumes with masks of five kinds."""

    kind: Literal["bhsd"] = "bhsd"


class SegSource(ScanFolder, frozen=True):
    """DICOM series with the segmentations that readers drew or corrected."""

    kind: Literal["dicom-seg"] = "dicom-seg"


class OpinionsSource(ScanFolder, frozen=True):
    """Studies that the site's own readers agreed or disagreed on: a label each."""

    kind: Literal["opinions"] = "opinions"


FolderSource = CtIchNiftiSource | RsnaSource | Cq500Source | InstanceSource | BhsdSource | SegSource | OpinionsSource
