"""The sources of scans that a configuration can name, all giving the same record on the model's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np

from training.adapters.cq500 import cq500_cases
from training.adapters.dicom_seg import dicom_seg_cases
from training.adapters.masked_nifti import bhsd_cases, ct_ich_nifti_cases, instance_cases
from training.adapters.readers import reader_cases
from training.adapters.rsna import rsna_cases
from training.bleeds import BleedKind
from training.case import Case
from training.cleansing import checked
from training.ct_ich import ct_ich_cases
from training.labelled_scan import LabelledScan, LabelledSlabs, on_grid
from training.pasted_blood import estimate_spaces, paste_blood
from training.phantom import Phantom, PlannedBleed, make_phantom, plan_bleeds
from training.settings import CtIchSource, PastedSource, PhantomSource, SourceSettings
from training.source_settings import ScanFolder
from triage.volume import Grid

FOLDERS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "ct-ich": ct_ich_cases,
    "pasted": ct_ich_cases,
    "ct-ich-nifti": ct_ich_nifti_cases,
    "rsna": rsna_cases,
    "cq500": cq500_cases,
    "instance": instance_cases,
    "bhsd": bhsd_cases,
    "dicom-seg": dicom_seg_cases,
    "opinions": reader_cases,
}


def read_source(source: SourceSettings, grid: Grid) -> Iterator[LabelledSlabs]:
    """Give the scans of one source on the grid, one after another, never all in memory.

    Raises:
        ConfigError: the path is not the source it claims to be, a table has other columns, or a scan of a published
            set is faulty (`BadScan`); each names the thing.
    """
    match source:
        case CtIchSource() | PhantomSource():
            for case in cases_of(source):
                yield on_grid(case.read(), grid)
        case PastedSource():
            yield from _pasted(source, grid)
        case ScanFolder():
            for case in cases_of(source):
                yield on_grid(checked(case), grid)
        case _:
            assert_never(source)


def cases_of(source: SourceSettings) -> Iterator[Case]:
    """Give the scans of a source that lie in its folds, not read yet.

    Of `pasted` these are the heads that blood is pasted into: its patients.

    Raises:
        ConfigError: the path is not the source it claims to be, or a table has other columns.
    """
    if isinstance(source, PhantomSource):
        yield from _phantoms(source)
        return
    for case in FOLDERS[source.kind](source.folder):
        if case.fold in source.folds:
            yield replace(case, source=f"{case.source}, pasted") if isinstance(source, PastedSource) else case


def scan_of(phantom: Phantom, patient: str) -> LabelledScan:
    """Give a phantom as a labelled scan."""
    shown = phantom.mask.any(axis=(1, 2))
    labels = np.stack([shown & (kind in phantom.kinds) for kind in BleedKind], axis=1)
    return LabelledScan(phantom.volume, phantom.mask, labels, patient, "phantom")


def _phantoms(source: PhantomSource) -> Iterator[Case]:
    """Give phantoms, each drawn when it is read."""
    rng = np.random.default_rng(source.seed)
    for index in range(source.count):
        bleeds = plan_bleeds(rng, source.bleed_ml) if rng.random() < source.bleed_share else ()
        patient = f"{source.seed}-{index}"
        yield Case(patient, patient, "phantom", -1, partial(_draw, source, int(rng.integers(2**31)), bleeds, patient))


def _draw(source: PhantomSource, seed: int, bleeds: tuple[PlannedBleed, ...], patient: str) -> LabelledScan:
    return scan_of(make_phantom(seed, bleeds, slices=source.slices, size=source.size), patient)


def _pasted(source: PastedSource, grid: Grid) -> Iterator[LabelledSlabs]:
    rng = np.random.default_rng(source.seed)
    for case in cases_of(source):
        scan = case.read()
        if scan.bleed:
            continue
        head = on_grid(scan, grid)
        spaces = estimate_spaces(head)
        for _ in range(source.copies):
            pasted = paste_blood(head, spaces, plan_bleeds(rng, source.bleed_ml), rng)
            if pasted.bleed:
                yield pasted
