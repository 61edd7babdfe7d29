"""What makes a scan fit to learn from, what is repaired, and what is left out.

A scan is judged by measurements with named limits, so that the same data set always comes out the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.case import Case
from training.head_spaces import BoolField
from training.labelled_scan import LabelledScan, LabelStrength
from training.scan_faults import BadScan, FaultAction, ScanFault, ScanFinding
from triage.volume import HU_RANGE, TISSUE_HU, Volume

MIN_SLICES = 12  # the worker reads no shorter series
AIR_BELOW_HU = -200.0  # every head CT has air below and bone above
BONE_ABOVE_HU = 300.0
UNSHIFTED_LOWEST = (-64.0, 0.0)  # stored values whose intercept of -1024 HU was forgotten: air lies at 0
UNSHIFTED_HIGHEST = 1800.0  # and bone at 1800 and more
CLIPPED_SHARE = 0.01  # of all voxels at the very highest or lowest value: cut off there by a window
MASK_TOLERATED = 0.005  # of a mask over air or outside the head: its pixels' edges
MASK_REPAIRED = 0.20  # up to this share is cut away; more means that the mask belongs elsewhere
HEAD_STEP_MM = 2.0  # coarse enough to be fast, fine enough for a skull of 6 mm


@dataclass(frozen=True)
class Cleansed:
    """A scan after cleansing: None where it is left out."""

    scan: LabelledScan | None
    findings: tuple[ScanFinding, ...]


@dataclass(frozen=True)
class _Step:
    """What one check found: the scan to go on with, None to leave it out, and why."""

    scan: LabelledScan | None
    fault: ScanFault
    measured: str


def cleanse(scan: LabelledScan, name: str) -> Cleansed:
    """Check one scan, repair what can be repaired, and leave it out where that fails."""
    findings: list[ScanFinding] = []
    for check in CHECKS:
        step = check(scan)
        if step is None:
            continue
        action = _action(scan, step.scan)
        findings.append(ScanFinding(scan.source, name, step.fault, action, step.measured))
        if step.scan is None:
            return Cleansed(None, tuple(findings))
        scan = step.scan
    return Cleansed(scan, tuple(findings))


def checked(case: Case) -> LabelledScan:
    """Read a scan that must be fit as it is, or after repair.

    Raises:
        BadScan: it is not.
    """
    cleansed = cleanse(case.read(), case.name)
    if cleansed.scan is None:
        worst = cleansed.findings[-1]
        raise BadScan(f"{case.name} of {case.source}", worst.fault, worst.measured)
    return cleansed.scan


def content_sha256(volume: Volume) -> str:
    """Give the hash of the voxels in whole HU: the same for the same images in DICOM and in NIfTI."""
    digest = hashlib.sha256(repr(volume.hu.shape).encode())
    for plane in volume.hu:
        digest.update(np.clip(np.rint(plane), *HU_RANGE).astype("<i2").tobytes())
    return digest.hexdigest()


def head_mask(volume: Volume) -> BoolField:
    """Find the head: (Z, Y, X) the largest connected tissue, filled slice by slice."""
    step = max(1, round(HEAD_STEP_MM / volume.spacing_mm[1]))
    tissue = ndimage.binary_opening(volume.hu[:, ::step, ::step] > TISSUE_HU, np.ones((1, 3, 3), bool))
    labels, count = ndimage.label(tissue)
    if count == 0:
        return np.zeros(volume.hu.shape, np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in labels == sizes.argmax()])
    grown = ndimage.binary_dilation(filled, np.ones((1, 3, 3), bool))  # what sampling cut off
    rows, columns = volume.hu.shape[1:]
    return np.repeat(np.repeat(grown, step, axis=1), step, axis=2)[:, :rows, :columns]


def _action(before: LabelledScan, after: LabelledScan | None) -> FaultAction:
    if after is None:
        return FaultAction.DROPPED
    return FaultAction.KEPT if after is before else FaultAction.REPAIRED


def _enough_slices(scan: LabelledScan) -> _Step | None:
    slices = len(scan.volume.hu)
    if slices >= MIN_SLICES:
        return None
    return _Step(None, ScanFault.TOO_FEW_SLICES, f"{slices} slices; expected at least {MIN_SLICES}")


def _finite(scan: LabelledScan) -> _Step | None:
    bad = int(np.count_nonzero(~np.isfinite(scan.volume.hu)))
    return _Step(None, ScanFault.NOT_FINITE, f"{bad} voxels are NaN or infinite") if bad else None


def _intercept(scan: LabelledScan) -> _Step | None:
    """Stored values instead of HU: air at 0 and bone far above; the intercept is subtracted."""
    lowest, highest = _ends(scan.volume.hu)
    if not UNSHIFTED_LOWEST[0] <= lowest <= UNSHIFTED_LOWEST[1] or highest < UNSHIFTED_HIGHEST:
        return None
    moved = replace(scan.volume, hu=scan.volume.hu - np.float32(1024))
    measured = f"values run from {lowest:.0f} to {highest:.0f}: an intercept of -1024 HU is added"
    return _Step(replace(scan, volume=moved), ScanFault.NOT_HU, measured)


def _window(scan: LabelledScan) -> _Step | None:
    """Values cut off by a window that hides air, bone or blood."""
    hu = scan.volume.hu
    lowest, highest = _ends(hu)
    if lowest <= AIR_BELOW_HU and highest >= BONE_ABOVE_HU:
        return None
    clipped = max(float(np.mean(hu == lowest)), float(np.mean(hu == highest)))
    expected = f"expected air below {AIR_BELOW_HU:.0f} and bone above {BONE_ABOVE_HU:.0f} HU"
    if clipped >= CLIPPED_SHARE and lowest < highest and not _is_eight_bit(hu):
        measured = f"values are cut off at {lowest:.0f} and {highest:.0f} HU; {expected}"
        return _Step(None, ScanFault.WRONG_WINDOW, measured)
    return _Step(None, ScanFault.NOT_HU, f"values run from {lowest:.0f} to {highest:.0f}; {expected}")


def _is_eight_bit(hu: npt.NDArray[np.float32]) -> bool:
    """Whether these are grey levels: 0 to 1, or 0 to 255."""
    return float(hu.min()) == 0.0 and float(hu.max()) in (1.0, 255.0)


def _mask_over_air(scan: LabelledScan) -> _Step | None:
    return _cut(scan, scan.volume.hu > TISSUE_HU, ScanFault.MASK_OVER_AIR, "over air") if scan.mask.any() else None


def _mask_outside_head(scan: LabelledScan) -> _Step | None:
    if not scan.mask.any():
        return None
    return _cut(scan, head_mask(scan.volume), ScanFault.MASK_OUTSIDE_HEAD, "outside the head")


def _cut(scan: LabelledScan, allowed: BoolField, fault: ScanFault, where: str) -> _Step | None:
    """Cut away what of a mask lies where no blood can lie; too much of it leaves the scan out."""
    outside = float(np.count_nonzero(scan.mask & ~allowed)) / float(np.count_nonzero(scan.mask))
    if outside <= MASK_TOLERATED:
        return None
    measured = f"{outside:.1%} of the mask lies {where}"
    if outside > MASK_REPAIRED:
        return _Step(None, fault, f"{measured}; at most {MASK_REPAIRED:.0%} can be cut away")
    return _Step(replace(scan, mask=scan.mask & allowed), fault, measured)


def _agreement(scan: LabelledScan) -> _Step | None:
    """Hold labels against the mask: labels without mask make the scan weaker, a mask without label leaves it out."""
    if scan.strength is not LabelStrength.VOXELS or _names_no_kinds(scan):
        return None
    shown, drawn = np.any(scan.slice_labels, axis=1), np.any(scan.mask, axis=(1, 2))
    if not drawn.any() and shown.any():
        measured = f"{int(shown.sum())} slices are labelled and none is drawn: the mask is not used"
        return _Step(replace(scan, strength=LabelStrength.SLICES), ScanFault.CONTRADICTION, measured)
    if drawn.any() and not shown.any():
        return _Step(None, ScanFault.CONTRADICTION, f"{int(drawn.sum())} slices are drawn and none is labelled")
    if bool((shown != drawn).any()):
        labelled_only, drawn_only = int((shown & ~drawn).sum()), int((drawn & ~shown).sum())
        measured = f"{labelled_only} slices labelled and not drawn, {drawn_only} drawn and not labelled"
        return _Step(scan, ScanFault.CONTRADICTION, measured)
    return None


def _names_no_kinds(scan: LabelledScan) -> bool:
    """Whether a source may draw blood without naming its kind, so that labels come from the mask or not at all."""
    return scan.source in KINDLESS


def _ends(hu: npt.NDArray[np.float32]) -> tuple[float, float]:
    return float(hu.min()), float(hu.max())


KINDLESS = frozenset({"instance", "dicom-seg", "opinions"})
CHECKS: Sequence[Callable[[LabelledScan], _Step | None]] = (
    _finite,
    _enough_slices,
    _intercept,
    _window,
    _mask_over_air,
    _mask_outside_head,
    _agreement,
)
