"""What makes a scan fit: each fault on a scan that has just it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training import data_sets
from tests.training.data_sets import BLOOD, SLICES, SPACING_MM
from training.bleeds import BleedKind
from training.cleansing import cleanse, content_sha256, head_mask
from training.labelled_scan import LabelledScan, LabelStrength
from training.scan_faults import FaultAction, ScanFault
from triage.volume import Volume


def scan_with(hu=None, mask=None, shown=(6, 7)) -> LabelledScan:
    """A bleeding head, whose labels name the drawn slices."""
    own_hu, own_mask = data_sets.bleeding_head(1)
    hu = own_hu if hu is None else hu
    labels = np.zeros((len(hu), len(BleedKind)), bool)
    labels[list(shown), 0] = True
    return LabelledScan(Volume(hu, SPACING_MM), own_mask if mask is None else mask, labels, "1", "test")


def only_finding(scan):
    cleansed = cleanse(scan, "a scan")
    [finding] = cleansed.findings
    return cleansed.scan, finding.fault, finding.action, finding.measured


def test_fit_scan_passes_unchanged():
    scan = scan_with()

    cleansed = cleanse(scan, "a scan")

    assert cleansed.scan is scan
    assert cleansed.findings == ()


def test_short_scan_is_left_out():
    scan = scan_with(data_sets.head(0, slices=9), np.zeros((9, 64, 64), bool), shown=())

    kept, fault, _, measured = only_finding(scan)

    assert (kept, fault, measured) == (None, ScanFault.TOO_FEW_SLICES, "9 slices; expected at least 12")


def test_nan_is_left_out():
    hu, _ = data_sets.bleeding_head(1)
    hu[0, 0, 0] = np.nan

    assert only_finding(scan_with(hu))[:2] == (None, ScanFault.NOT_FINITE)


def test_window_that_cuts_off_bone_is_left_out():
    hu, _ = data_sets.bleeding_head(1)

    kept, fault, _, measured = only_finding(scan_with(np.clip(hu, -20, 100)))

    assert (kept, fault) == (None, ScanFault.WRONG_WINDOW)
    assert measured.startswith("values are cut off at -20 and 100 HU")


@pytest.mark.parametrize("highest", [1.0, 255.0])
def test_grey_levels_are_not_hu(highest):
    hu, _ = data_sets.bleeding_head(1)
    grey = np.clip((hu + 20) / 120, 0, 1) * highest

    assert only_finding(scan_with(grey.astype(np.float32)))[:2] == (None, ScanFault.NOT_HU)


def test_forgotten_intercept_is_added():
    hu, _ = data_sets.bleeding_head(1)
    hu = np.where(hu == -1000, -1024, np.where(hu == 900, 1200, hu)).astype(np.float32)

    kept, fault, action, _ = only_finding(scan_with(hu + 1024))

    assert (fault, action) == (ScanFault.NOT_HU, FaultAction.REPAIRED)
    np.testing.assert_array_equal(kept.volume.hu, hu)


def test_small_part_of_a_mask_over_air_is_cut_away():
    _, mask = data_sets.bleeding_head(1)
    mask[6, 0, :6] = True  # 6 of 126 voxels, outside of the head

    kept, fault, action, measured = only_finding(scan_with(mask=mask))

    assert (fault, action, measured) == (
        ScanFault.MASK_OVER_AIR,
        FaultAction.REPAIRED,
        "4.8% of the mask lies over air",
    )
    assert kept.mask.sum() == mask[BLOOD].size


def test_mask_that_lies_elsewhere_leaves_the_scan_out():
    mask = np.zeros((SLICES, 64, 64), bool)
    mask[6:8, 0:6, 0:10] = True

    kept, fault, action, measured = only_finding(scan_with(mask=mask))

    assert (kept, fault, action) == (None, ScanFault.MASK_OVER_AIR, FaultAction.DROPPED)
    assert measured == "100.0% of the mask lies over air; at most 20% can be cut away"


def test_mask_on_a_head_rest_lies_outside_the_head():
    hu, mask = data_sets.bleeding_head(1)
    hu[:, 60:63, 20:44] = 30  # foam and plastic, apart from the head
    mask[6, 61, 20:26] = True

    kept, fault, action, _ = only_finding(scan_with(hu, mask))

    assert (fault, action) == (ScanFault.MASK_OUTSIDE_HEAD, FaultAction.REPAIRED)
    assert not kept.mask[6, 61].any()


def test_labels_without_any_mask_make_the_scan_weaker():
    kept, fault, action, measured = only_finding(scan_with(mask=np.zeros((SLICES, 64, 64), bool)))

    assert (fault, action) == (ScanFault.CONTRADICTION, FaultAction.REPAIRED)
    assert measured == "2 slices are labelled and none is drawn: the mask is not used"
    assert kept.strength is LabelStrength.SLICES


def test_mask_without_any_label_leaves_the_scan_out():
    assert only_finding(scan_with(shown=()))[:3] == (None, ScanFault.CONTRADICTION, FaultAction.DROPPED)


def test_slices_that_differ_are_reported_and_kept():
    scan = scan_with(shown=(5, 6))

    kept, _, action, measured = only_finding(scan)

    assert kept is scan
    assert (action, measured) == (FaultAction.KEPT, "1 slices labelled and not drawn, 1 drawn and not labelled")


def test_head_is_found_with_its_air_filled_spaces():
    hu = data_sets.head(0)
    hu[3, 40:44, 30:34] = -1000  # a sinus

    head = head_mask(Volume(hu, SPACING_MM))

    assert head[3, 42, 32]
    assert not head[3, 1, 1]


def test_content_is_the_same_whatever_it_was_stored_as():
    hu, _ = data_sets.bleeding_head(1)
    volume = Volume(hu, SPACING_MM)
    noisy = replace(volume, hu=hu + np.float32(0.2))
    other = replace(volume, hu=hu + np.float32(1.0))

    assert content_sha256(noisy) == content_sha256(volume)
    assert content_sha256(other) != content_sha256(volume)
