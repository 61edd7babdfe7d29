"""The source ct-ich, on a folder in its layout and on the real one."""

import os
from pathlib import Path

import pytest

from training.bleeds import BleedKind
from training.ct_ich import read_ct_ich
from triage.errors import ConfigError

REAL = Path(os.environ.get("ICH_TRIAGE_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "ct-ich"


def test_grey_levels_become_hounsfield_units(tiny_ct_ich):
    scan = next(read_ct_ich(tiny_ct_ich))

    assert scan.volume.hu.shape == (2, 384, 384)
    assert scan.volume.hu[0, 192, 192] == pytest.approx(40.2, abs=1)
    assert scan.volume.hu[0, 0, 0] == -1000


def test_mask_and_labels_belong_to_their_slice(tiny_ct_ich):
    _, bleeding = read_ct_ich(tiny_ct_ich)

    assert bleeding.mask.sum(axis=(1, 2)).tolist() == [0, 400]
    assert bleeding.slice_labels[1, list(BleedKind).index(BleedKind.IPH)]
    assert (bleeding.patient, bleeding.fold, bleeding.bleed) == ("50", 1, True)


def test_folds_choose_patients(tiny_ct_ich):
    assert [scan.patient for scan in read_ct_ich(tiny_ct_ich, folds=(0,))] == ["49"]


def test_folder_that_is_not_ct_ich_is_named_with_what_it_lacks(tmp_path):
    with pytest.raises(ConfigError, match=r"is not ct-ich: it has no labels\.csv"):
        list(read_ct_ich(tmp_path))


def test_csv_with_other_columns_is_refused(tiny_ct_ich):
    (tiny_ct_ich / "labels.csv").write_text("slice,patient,any\n049_01,49,0\n")

    with pytest.raises(ConfigError, match="no column slice_no, IVH, IPH, SAH, EDH, SDH, fold"):
        list(read_ct_ich(tiny_ct_ich))


def test_image_that_cannot_be_read_is_named(tiny_ct_ich):
    (tiny_ct_ich / "brain" / "049_01.jpg").write_bytes(b"no image")

    with pytest.raises(ConfigError, match=r"049_01\.jpg of ct-ich cannot be read"):
        list(read_ct_ich(tiny_ct_ich))


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.exists(), reason="no ../shared/data/ct-ich; set ICH_TRIAGE_TEST_DATA")
def test_real_fold_has_its_patients():
    scans = list(read_ct_ich(REAL, folds=(0,)))

    assert len(scans) == 14
    assert sum(scan.bleed for scan in scans) == 6
    assert all(scan.volume.hu.min() >= -1024 and scan.volume.hu.max() > 800 for scan in scans)
