"""One study from files to finding, with a network whose answer is known on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from inference.pipeline import Refusal, read_study
from tests.builders import ct_series, head_hu, write_files
from tests.networks import ThresholdNetwork
from triage.errors import ServingError
from triage.finding import Finding
from triage.study import NotAnalysedReason

PIXEL_MM = 3.5


def bleeding_head(slices: int = 30) -> np.ndarray:
    """A head with a bleed of 70 HU: 4 slices x 8 x 8 pixels of 5 x 3.5 x 3.5 mm = 15.68 mL, at slices 12 to 15."""
    hu = head_hu(slices)
    hu[12:16, 28:36, 36:44] = 70
    return hu


def read(datasets: list[Dataset], folder: Path, network: ThresholdNetwork | None = None) -> Finding | Refusal:
    return read_study(write_files(datasets, folder), network or ThresholdNetwork())


def test_bleed_is_flagged_with_its_volume_and_its_slabs(tmp_path: Path) -> None:
    finding = read(ct_series(hu=bleeding_head()), tmp_path)

    assert isinstance(finding, Finding)
    assert finding.flagged
    # partial pixels at the border fall on either side of the threshold
    assert finding.volume_ml == pytest.approx(15.68, rel=0.10)
    assert finding.components[0].slab_range == (12, 15)
    assert set(finding.key_slabs) <= {12, 13, 14, 15}
    assert set(finding.seconds) == {"select", "build", "predict", "find"}


def test_head_without_bleed_is_not_flagged(tmp_path: Path) -> None:
    finding = read(ct_series(slices=30, hu=35), tmp_path)

    assert isinstance(finding, Finding)
    assert not finding.flagged
    assert (finding.volume_ml, finding.components) == (0.0, ())


def test_network_gets_slabs_with_their_neighbours_on_its_grid(tmp_path: Path) -> None:
    network = ThresholdNetwork()

    read(ct_series(slices=31), tmp_path, network)

    assert network.asked == [(31, 192, 192, 3)]


def test_volume_does_not_depend_on_slice_thickness(tmp_path: Path) -> None:
    thin = np.repeat(bleeding_head(), 4, axis=0)  # the same head in slices of 1.25 mm

    finding = read(ct_series(hu=thin, spacing_mm=(1.25, PIXEL_MM, PIXEL_MM)), tmp_path)

    assert isinstance(finding, Finding)
    assert finding.volume_ml == pytest.approx(15.68, rel=0.10)


def test_what_is_too_wide_for_a_head_is_refused_with_its_size(tmp_path: Path) -> None:
    chest = head_hu(30)  # drawn for pixels of 3.5 mm; with pixels of 8 mm it is 434 x 343 mm

    refusal = read(ct_series(hu=chest, spacing_mm=(5.0, 8.0, 8.0)), tmp_path)

    assert isinstance(refusal, Refusal)
    assert refusal.reason is NotAnalysedReason.NOT_HEAD
    assert "expected 80 to 300 mm" in refusal.measured
    assert [choice.chosen for choice in refusal.series_choices] == [False]


def test_study_with_an_image_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    datasets = ct_series(slices=30)
    datasets[17].PixelData = datasets[17].PixelData[:100]

    refusal = read(datasets, tmp_path)

    assert isinstance(refusal, Refusal)
    assert refusal.reason is NotAnalysedReason.CANNOT_DECODE
    assert refusal.measured.startswith("image 18 of 30")
    assert refusal.series_choices[0].reason is NotAnalysedReason.CANNOT_DECODE


def test_maps_of_another_shape_are_an_error_of_the_endpoint(tmp_path: Path) -> None:
    class Cropping(ThresholdNetwork):
        def predict(self, hu, *, spec, version):
            return super().predict(hu, spec=spec, version=version)[:, :96]

    with pytest.raises(ServingError, match=r"\(30, 96, 192\); expected \(30, 192, 192\)"):
        read(ct_series(slices=30), tmp_path, Cropping())
