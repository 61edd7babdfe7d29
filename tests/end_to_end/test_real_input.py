"""Real head CTs through the real ports: each ends in a final state, with a finding or the right reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from tests.end_to_end.conftest import Site
from triage.study import NotAnalysedReason, StudyState

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def study_uids(folder: Path) -> set[str]:
    uids = set()
    for path in folder.rglob("*"):
        try:
            uids.add(str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID))
        except (InvalidDicomError, AttributeError, OSError):
            continue  # licences, NIfTI files, a DICOMDIR
    return uids


def only_uid(folder: Path) -> str:
    [uid] = study_uids(folder)
    return uid


@pytest.mark.dcmtk
@pytest.mark.skipif(shutil.which("storescu") is None, reason="storescu of the Debian package dcmtk is not installed")
def test_tilted_head_with_uneven_gaps_is_refused_with_the_gaps(site: Site, real_dicom: Path) -> None:
    folder = real_dicom / "dcm_qa_ct" / "GE"

    assert site.storescu(folder) == 0

    study = site.wait_ended(only_uid(folder), timeout_s=120)  # uneven gaps: completed by the cap on waiting
    assert (study.state, study.reason) == (StudyState.NOT_ANALYSED, NotAnalysedReason.UNEVEN_GAPS)
    assert "7.00 mm" in study.detail
    assert study.instance_count == 28


def test_thick_brain_of_the_trauma_phantom_is_read_and_nothing_flagged(site: Site, real_dicom: Path) -> None:
    folder = real_dicom / "dcm_qa_ct" / "Philips-trauma-phantom"

    assert site.push(folder) == 0

    study = site.wait_ended(only_uid(folder), timeout_s=120)
    analysis = site.studies.current_analysis(study.study_instance_uid)
    assert study.state is StudyState.ANALYSED, study.detail
    assert analysis is not None
    chosen = [choice.series_number for choice in analysis.series_choices if choice.chosen]
    refused = {choice.series_number: choice.reason for choice in analysis.series_choices if choice.reason}
    assert chosen == [201]
    assert refused == {
        100: NotAnalysedReason.LOCALIZER,
        203: NotAnalysedReason.BONE_KERNEL,
        401: NotAnalysedReason.DERIVED,
    }
    assert analysis.finding is not None
    assert not analysis.finding.flagged  # dense rods in plastic are no blood


def test_broken_geometry_ends_refused_never_crashed(site: Site, real_dicom: Path) -> None:
    folder = real_dicom / "dicom2nifti" / "failing"

    assert site.push(folder) == 0

    for uid in study_uids(folder):
        study = site.wait_ended(uid, timeout_s=180)
        assert study.state is StudyState.NOT_ANALYSED, study.detail
        assert study.detail


@pytest.mark.dcmtk
@pytest.mark.skipif(shutil.which("storescu") is None, reason="storescu of the Debian package dcmtk is not installed")
def test_patients_of_ct_ich_are_read(site: Site, real_data: Path, tmp_path: Path) -> None:
    converter = real_data / "ct-ich" / "to_dicom.py"
    subprocess.run([sys.executable, str(converter), str(tmp_path), "49", "54"], check=True, capture_output=True)

    assert site.storescu(tmp_path / "049") == 0
    assert site.push(tmp_path / "054") == 0

    for patient in ("049", "054"):
        study = site.wait_ended(only_uid(tmp_path / patient))
        analysis = site.studies.current_analysis(study.study_instance_uid)
        assert study.state is StudyState.ANALYSED, study.detail
        assert study.completed_by == "geometry"
        assert analysis is not None
        assert analysis.finding is not None
        assert analysis.finding.slab_count == study.instance_count
