"""From stored instances to Hounsfield units: geometry, values and every refusal."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless, generate_uid

from tests.builders import ct_series, head_hu, localizer, write_files
from triage.ct_series import SeriesHeader, read_series, read_volume, sort_slices, tilt_degrees
from triage.errors import IrregularSpacing, UnreadableInstance, UnsuitableSeries
from triage.study import NotAnalysedReason


def only_series(datasets: list[Dataset], folder: Path) -> SeriesHeader:
    [series] = read_series(write_files(datasets, folder))
    return series


def corner_marked_head() -> np.ndarray:
    """A head with a calcification near the patient's left front and a bright lowest slice."""
    hu = head_hu(12)
    hu[:, 16:18, 40:42] = 300  # front (small y), left (large x)
    hu[0] += 1
    return hu


def test_volume_holds_the_stored_hounsfield_units(tmp_path: Path) -> None:
    hu = corner_marked_head()

    volume = read_volume(only_series(ct_series(hu=hu), tmp_path))

    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm == (5.0, 3.5, 3.5)
    assert volume.hu.dtype == np.float32


def test_slices_are_ordered_by_position_not_by_number_or_file(tmp_path: Path) -> None:
    datasets = ct_series(hu=corner_marked_head())
    for number, ds in enumerate(reversed(datasets), 1):
        ds.InstanceNumber = number
    shuffled = [datasets[index] for index in (5, 0, 11, 3, 2, 1, 10, 9, 4, 8, 7, 6)]

    volume = read_volume(only_series(shuffled, tmp_path))

    np.testing.assert_array_equal(volume.hu, corner_marked_head())
    assert volume.slice_uids == tuple(ds.SOPInstanceUID for ds in datasets)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        ([-1, 0, 0, 0, -1, 0], lambda hu: hu[:, ::-1, ::-1]),  # stored upside down and mirrored
        ([-1, 0, 0, 0, 1, 0], lambda hu: hu[:, :, ::-1]),
        ([0, 1, 0, 1, 0, 0], lambda hu: hu.transpose(0, 2, 1)),  # rows run front to back
    ],
)
def test_any_axial_orientation_becomes_the_same_volume(tmp_path: Path, orientation: list[int], turned) -> None:
    hu = corner_marked_head()
    datasets = ct_series(hu=np.ascontiguousarray(turned(hu)), ImageOrientationPatient=orientation)

    volume = read_volume(only_series(datasets, tmp_path))

    np.testing.assert_array_equal(volume.hu, hu)


def test_tilted_gantry_is_measured_and_its_shift_taken_out(tmp_path: Path) -> None:
    tilt = np.radians(20)
    hu = head_hu(24)
    rows = [round(26 + index * 5.0 * np.tan(tilt) / 3.5) for index in range(24)]
    for index, row in enumerate(rows):  # a rod along the slices' normal, as it stands in slices of a straight table
        hu[index, row, 32] = 2000
    datasets = ct_series(hu=hu, ImageOrientationPatient=[1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)])
    for index, ds in enumerate(datasets):  # the table moves along z: slices are 5 mm apart along their normal
        ds.ImagePositionPatient = [-112.0, -112.0, index * 5.0 / np.cos(tilt)]

    series = only_series(datasets, tmp_path)
    volume = read_volume(series)

    assert tilt_degrees(series) == pytest.approx(20, abs=0.01)
    assert volume.spacing_mm[0] == pytest.approx(5.0, abs=1e-6)
    found = [int(np.argmax(plane[:, 32])) for plane in volume.hu]
    assert max(found) - min(found) <= 1  # to the nearest pixel; 12 before
    assert max(rows) - min(rows) == 12


def rle(path: Path) -> None:
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path)


def jpeg_2000(path: Path) -> None:
    ds = pydicom.dcmread(path)
    codestream = BytesIO()
    plane = Image.frombytes("I;16", (ds.Columns, ds.Rows), ds.PixelData)
    plane.save(codestream, "JPEG2000", no_jp2=True, irreversible=False)
    ds.PixelData = encapsulate([codestream.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(path)


def with_dcmtk(program: str) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        if shutil.which(program) is None:
            pytest.skip(f"{program} of the Debian package dcmtk is not installed")
        subprocess.run([program, "--uid-never", str(path), str(path)], check=True)

    return convert


@pytest.mark.parametrize(
    ("compress", "syntax"),
    [
        (rle, RLELossless),
        (jpeg_2000, JPEG2000Lossless),
        pytest.param(with_dcmtk("dcmcjpls"), JPEGLSLossless, marks=pytest.mark.dcmtk),
        pytest.param(with_dcmtk("dcmcjpeg"), JPEGLosslessSV1, marks=pytest.mark.dcmtk),
    ],
)
def test_compressed_pixels_are_the_same_hounsfield_units(
    tmp_path: Path, compress: Callable[[Path], None], syntax: str
) -> None:
    paths = write_files(ct_series(hu=corner_marked_head(), PixelRepresentation=0), tmp_path)
    for path in paths:
        compress(path)
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax

    [series] = read_series(paths)

    np.testing.assert_array_equal(read_volume(series).hu, corner_marked_head())


def test_rescale_differs_by_slice(tmp_path: Path) -> None:
    datasets = ct_series(slices=12)
    datasets[3].RescaleIntercept = -1000

    volume = read_volume(only_series(datasets, tmp_path))

    assert volume.hu[3, 32, 32] == 64
    assert volume.hu[4, 32, 32] == 40


def test_padding_below_the_scanners_range_is_air(tmp_path: Path) -> None:
    hu = head_hu(12)
    hu[:, :4] = -3024  # outside of the field of view, as some scanners store it
    volume = read_volume(only_series(ct_series(hu=hu, RescaleIntercept=-1024), tmp_path))

    assert volume.hu.min() == -1000


def test_scout_in_the_same_series_is_an_entry_of_its_own(tmp_path: Path) -> None:
    datasets = ct_series(slices=12)
    scout = localizer(datasets[0].StudyInstanceUID)
    scout.SeriesInstanceUID = datasets[0].SeriesInstanceUID

    series = read_series(write_files([scout, *datasets], tmp_path))

    assert sorted((each.is_localizer, len(each.slices)) for each in series) == [(False, 12), (True, 1)]


def test_missing_slice_is_refused_with_the_gap(tmp_path: Path) -> None:
    datasets = ct_series(slices=20)
    del datasets[7]

    with pytest.raises(IrregularSpacing, match=r"5\.00 to 10\.00 mm"):
        sort_slices(only_series(datasets, tmp_path))


def test_doubled_slice_is_refused(tmp_path: Path) -> None:
    datasets = ct_series(slices=20)
    datasets[8].ImagePositionPatient = datasets[7].ImagePositionPatient

    with pytest.raises(IrregularSpacing, match=r"0\.00 to 10\.00 mm"):
        sort_slices(only_series(datasets, tmp_path))


def test_positions_rounded_to_hundredths_are_even(tmp_path: Path) -> None:
    datasets = ct_series(slices=40, spacing_mm=(0.625, 3.5, 3.5))
    for ds in datasets:
        ds.ImagePositionPatient = [f"{value:.2f}" for value in ds.ImagePositionPatient]

    assert sort_slices(only_series(datasets, tmp_path))[1] == pytest.approx(0.625, abs=0.001)


def refusal(datasets: list[Dataset], folder: Path) -> tuple[NotAnalysedReason, str]:
    with pytest.raises(UnsuitableSeries) as caught:
        read_volume(only_series(datasets, folder))
    return caught.value.reason, caught.value.measured


def test_changing_orientation_is_refused(tmp_path: Path) -> None:
    datasets = ct_series(slices=12)
    datasets[5].ImageOrientationPatient = [1, 0, 0, 0, 0.94, -0.34]

    assert refusal(datasets, tmp_path)[0] is NotAnalysedReason.SEVERAL_ORIENTATIONS


def test_slices_without_position_are_refused_and_counted(tmp_path: Path) -> None:
    datasets = ct_series(slices=12)
    del datasets[2].ImagePositionPatient
    datasets[3].ImagePositionPatient = ["0", "0", ""]

    reason, measured = refusal(datasets, tmp_path)

    assert reason is NotAnalysedReason.NO_GEOMETRY
    assert measured.startswith("2 of 12 slices")


@pytest.mark.parametrize(
    "header", [{"RescaleSlope": None}, {"RescaleIntercept": None}, {"RescaleType": "US"}, {"RescaleSlope": 0}]
)
def test_values_that_are_no_hounsfield_units_are_refused(tmp_path: Path, header: dict) -> None:
    assert refusal(ct_series(slices=12, **header), tmp_path)[0] is NotAnalysedReason.NO_HU


def test_range_without_air_is_refused_with_its_ends(tmp_path: Path) -> None:
    reason, measured = refusal(ct_series(slices=12, RescaleIntercept=0), tmp_path)

    assert reason is NotAnalysedReason.NO_HU
    assert "from 24 to 1924" in measured


def test_pixels_cut_short_are_never_read_as_a_whole_slice(tmp_path: Path) -> None:
    datasets = ct_series(slices=12)
    datasets[4].PixelData = datasets[4].PixelData[:5000]

    reason, measured = refusal(datasets, tmp_path)

    assert reason is NotAnalysedReason.CANNOT_DECODE
    assert measured.startswith("image 5 of 12 (Explicit VR Little Endian)")


def test_two_image_sizes_in_one_series_are_refused(tmp_path: Path) -> None:
    series = generate_uid()
    datasets = ct_series(slices=6, series_instance_uid=series) + ct_series(
        slices=6, rows=32, columns=32, series_instance_uid=series
    )
    for index, ds in enumerate(datasets):
        ds.ImagePositionPatient = [-112, -112, 5.0 * index]

    assert refusal(datasets, tmp_path)[0] is NotAnalysedReason.NO_GEOMETRY


def test_file_that_is_no_dicom_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"no DICOM at all" * 40)

    with pytest.raises(UnreadableInstance):
        read_series([tmp_path / "x.dcm"])
