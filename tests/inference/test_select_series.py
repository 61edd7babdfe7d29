"""Which series is read, and the reason of each that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, MRImageStorage

from inference.select_series import Selection, select_series
from tests.builders import ct_series, localizer, secondary_capture, write_files
from tests.networks import THRESHOLD_SPEC
from triage.ct_series import read_series
from triage.study import NotAnalysedReason


def selected(datasets: list[Dataset], folder: Path) -> Selection:
    return select_series(read_series(write_files(datasets, folder)), THRESHOLD_SPEC)


def test_thick_brain_wins_over_everything_else_in_the_study(tmp_path: Path) -> None:
    brain = ct_series(slices=30, SeriesNumber=3, SeriesDescription="STD BRAIN 5MM")
    study = brain[0].StudyInstanceUID
    thin = ct_series(slices=120, spacing_mm=(1.25, 3.5, 3.5), study_instance_uid=study, SeriesNumber=4)
    bone = ct_series(slices=30, study_instance_uid=study, ConvolutionKernel="BONEPLUS", SeriesNumber=5)
    pages = [secondary_capture(study)]

    selection = selected([localizer(study), *pages, *bone, *thin, *brain], tmp_path)

    assert selection.series is not None
    assert selection.series.series_instance_uid == brain[0].SeriesInstanceUID
    reasons = {choice.series_number: choice.reason for choice in selection.choices}
    assert reasons == {
        1: NotAnalysedReason.LOCALIZER,
        3: None,
        4: None,
        5: NotAnalysedReason.BONE_KERNEL,
        999: NotAnalysedReason.DERIVED,
    }
    assert sum(choice.chosen for choice in selection.choices) == 1


def test_thin_series_is_read_when_it_is_the_only_one(tmp_path: Path) -> None:
    selection = selected(ct_series(slices=240, rows=16, columns=16, spacing_mm=(0.625, 14, 14)), tmp_path)

    assert selection.series is not None
    assert selection.choices[0].measured == "240 slices, 0.62 mm apart"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"Modality": "MR", "SOPClassUID": MRImageStorage}, NotAnalysedReason.NOT_CT),
        ({"SOPClassUID": EnhancedCTImageStorage}, NotAnalysedReason.NOT_CT),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, NotAnalysedReason.DERIVED),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, NotAnalysedReason.LOCALIZER),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "THORAX"}, NotAnalysedReason.NOT_HEAD),
        ({"BodyPartExamined": None, "SeriesDescription": "C-SPINE 2.0"}, NotAnalysedReason.NOT_HEAD),
        ({"ContrastBolusAgent": "IOMERON 400"}, NotAnalysedReason.CONTRAST),
        ({"SeriesDescription": "HEAD POST CONTRAST"}, NotAnalysedReason.CONTRAST),
        ({"SeriesDescription": "CTA HEAD"}, NotAnalysedReason.CONTRAST),
        ({"ConvolutionKernel": "H70h"}, NotAnalysedReason.BONE_KERNEL),
        ({"ConvolutionKernel": ["Hr64h", "3"]}, NotAnalysedReason.BONE_KERNEL),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, NotAnalysedReason.NOT_AXIAL),
        ({"ImageOrientationPatient": None}, NotAnalysedReason.NO_GEOMETRY),
    ],
)
def test_unfit_series_is_refused_for_its_reason(tmp_path: Path, header: dict, reason: NotAnalysedReason) -> None:
    datasets = ct_series(slices=30, **header)
    if header.get("ImageOrientationPatient"):  # a sagittal stack moves along x
        for index, ds in enumerate(datasets):
            ds.ImagePositionPatient = [5.0 * index, -112, 112]

    selection = selected(datasets, tmp_path)

    assert selection.series is None
    assert selection.reason is reason
    assert selection.measured


@pytest.mark.parametrize(
    "header",
    [
        {"SeriesDescription": "HEAD W/O CONTRAST"},
        {"SeriesDescription": "Head without contrast 5.0"},
        {"SeriesDescription": "NON-CONTRAST BRAIN"},
        {"ContrastBolusAgent": "NONE"},
        {"BodyPartExamined": "HEADNECK", "SeriesDescription": "HEAD"},
        {"BodyPartExamined": None, "SeriesDescription": None},
        {"ConvolutionKernel": "H31s"},
        {"ConvolutionKernel": ["Hr38h", "3"]},
        {"ConvolutionKernel": "UB"},
        {"ConvolutionKernel": None},
        {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]},
    ],
)
def test_fit_series_is_not_refused_for_how_it_is_named(tmp_path: Path, header: dict) -> None:
    assert selected(ct_series(slices=30, **header), tmp_path).series is not None


def test_too_few_slices_and_short_coverage_are_told_apart(tmp_path: Path) -> None:
    few = selected(ct_series(slices=6), tmp_path / "few")
    short = selected(ct_series(slices=40, spacing_mm=(1.0, 3.5, 3.5)), tmp_path / "short")

    assert (few.reason, few.measured) == (NotAnalysedReason.TOO_FEW_SLICES, "6 slices; expected at least 10")
    assert (short.reason, short.measured) == (
        NotAnalysedReason.SHORT_COVERAGE,
        "40 mm covered; expected at least 100 mm",
    )


def test_the_studys_reason_is_that_of_the_series_that_came_furthest(tmp_path: Path) -> None:
    brain = ct_series(slices=30)
    del brain[9]

    selection = selected([localizer(brain[0].StudyInstanceUID), *brain], tmp_path)

    assert selection.reason is NotAnalysedReason.UNEVEN_GAPS
    assert "5.00 to 10.00 mm" in selection.measured


def test_original_wins_over_derived_at_equal_spacing(tmp_path: Path) -> None:
    original = ct_series(slices=30, SeriesNumber=9)
    derived = ct_series(
        slices=32, study_instance_uid=original[0].StudyInstanceUID, ImageType=["DERIVED", "SECONDARY", "AXIAL"]
    )

    selection = selected(derived + original, tmp_path)

    assert selection.series is not None
    assert selection.series.series_number == 9


def test_study_without_images_is_no_ct(tmp_path: Path) -> None:
    assert selected([], tmp_path).reason is NotAnalysedReason.NOT_CT
