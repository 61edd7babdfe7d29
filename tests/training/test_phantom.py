"""Phantoms: truth to a voxel, and DICOM that a reader takes."""

from datetime import datetime

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from training.bleeds import BleedKind
from training.cli import phantoms
from training.phantom import PlannedBleed, make_phantom
from training.phantom_dicom import PhantomHeader, truths_of, write_series

SMALL = {"slices": 32, "slice_mm": 5.0, "size": 128}


def test_same_seed_gives_the_same_head():
    first, second = (make_phantom(7, **SMALL) for _ in range(2))

    np.testing.assert_array_equal(first.volume.hu, second.volume.hu)


def test_head_has_air_bone_brain_and_fluid():
    hu = make_phantom(7, **SMALL).volume.hu

    assert hu[:, 0, 0].max() < -900
    assert (hu > 500).mean() > 0.01
    assert ((hu > 20) & (hu < 45)).mean() > 0.05
    assert ((hu > 0) & (hu < 15)).mean() > 0.005


def test_bleed_free_head_has_an_empty_mask():
    phantom = make_phantom(7, **SMALL)

    assert not phantom.mask.any()
    assert phantom.volume_ml == 0.0


@pytest.mark.parametrize(("kind", "planned_ml"), [("IPH", 20.0), ("EDH", 20.0), ("IPH", 60.0), ("EDH", 3.0)])
def test_bleed_has_about_the_volume_that_was_planned(kind, planned_ml):
    phantom = make_phantom(3, [PlannedBleed(BleedKind(kind), planned_ml)], **SMALL)

    assert phantom.volume_ml == pytest.approx(planned_ml, rel=0.35)  # half-filled voxels count as none


@pytest.mark.parametrize("kind", list(BleedKind))
def test_blood_is_denser_than_brain_and_within_the_head(kind):
    phantom = make_phantom(5, [PlannedBleed(kind, 15.0)], **SMALL)

    assert phantom.volume_ml > 3.0
    assert 42 < np.median(phantom.volume.hu[phantom.mask]) < 80
    assert np.percentile(phantom.volume.hu[phantom.mask], 5) > 10


def test_series_is_what_a_scanner_writes(tmp_path):
    phantom = make_phantom(5, slices=4, size=64)
    header = PhantomHeader(3, datetime(2026, 1, 2, 3, 4, 5), pydicom.uid.generate_uid())

    paths = write_series(phantom, tmp_path, header)

    first, last = pydicom.dcmread(paths[0]), pydicom.dcmread(paths[-1])
    hu = np.stack([pydicom.dcmread(path).pixel_array.astype(int) - 1024 for path in paths])
    np.testing.assert_array_equal(hu, phantom.volume.hu.astype(int))
    assert (first.PatientName, first.StudyTime, first.RescaleIntercept) == ("PHANTOM^0003", "030405", -1024)
    assert last.ImagePositionPatient[2] - first.ImagePositionPatient[2] == pytest.approx(15.0)
    assert first.SOPInstanceUID != last.SOPInstanceUID
    assert first.StudyInstanceUID == last.StudyInstanceUID == header.study_instance_uid


def test_command_writes_studies_and_their_truth(tmp_path):
    result = CliRunner().invoke(phantoms, [str(tmp_path), "--count", "3", "--bleeds", "2", "--size", "64"])

    truths = truths_of(tmp_path)
    assert result.exit_code == 0, result.output
    assert [truth.bleed for truth in truths] == [False, True, True]
    assert all(len(list((tmp_path / truth.folder).glob("*.dcm"))) == 32 for truth in truths)
    assert all((truth.volume_ml > 0) == truth.bleed for truth in truths)


def test_command_refuses_more_bleeds_than_studies(tmp_path):
    result = CliRunner().invoke(phantoms, [str(tmp_path), "--count", "1", "--bleeds", "2"])

    assert result.exit_code == 2
    assert "2 bleeds in 1 studies" in result.output
