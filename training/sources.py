"""The sources of scans that a configuration can name, all giving the same record on the model's grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import numpy as np

from training.bleeds import BleedKind
from training.ct_ich import read_ct_ich
from training.labelled_scan import LabelledScan, LabelledSlabs, on_grid
from training.pasted_blood import estimate_spaces, paste_blood
from training.phantom import Phantom, make_phantom, plan_bleeds
from training.settings import CtIchSource, PastedSource, PhantomSource, SourceSettings
from triage.volume import Grid


def read_source(source: SourceSettings, grid: Grid) -> Iterator[LabelledSlabs]:
    """Give the scans of one source on the grid, one after another, never all in memory."""
    match source:
        case CtIchSource():
            for scan in read_ct_ich(source.folder, source.folds):
                yield on_grid(scan, grid)
        case PastedSource():
            yield from _pasted(source, grid)
        case PhantomSource():
            yield from _phantoms(source, grid)
        case _:
            assert_never(source)


def _pasted(source: PastedSource, grid: Grid) -> Iterator[LabelledSlabs]:
    rng = np.random.default_rng(source.seed)
    for scan in read_ct_ich(source.folder, source.folds):
        if scan.bleed:
            continue
        head = on_grid(scan, grid)
        spaces = estimate_spaces(head)
        for _ in range(source.copies):
            pasted = paste_blood(head, spaces, plan_bleeds(rng, source.bleed_ml), rng)
            if pasted.bleed:
                yield pasted


def _phantoms(source: PhantomSource, grid: Grid) -> Iterator[LabelledSlabs]:
    rng = np.random.default_rng(source.seed)
    for index in range(source.count):
        bleeds = plan_bleeds(rng, source.bleed_ml) if rng.random() < source.bleed_share else ()
        phantom = make_phantom(int(rng.integers(2**31)), bleeds, slices=source.slices, size=source.size)
        yield on_grid(scan_of(phantom, f"{source.seed}-{index}"), grid)


def scan_of(phantom: Phantom, patient: str) -> LabelledScan:
    """Give a phantom as a labelled scan."""
    shown = phantom.mask.any(axis=(1, 2))
    labels = np.stack([shown & (kind in phantom.kinds) for kind in BleedKind], axis=1)
    return LabelledScan(phantom.volume, phantom.mask, labels, patient, "phantom")
