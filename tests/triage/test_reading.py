"""Reading probability maps: the numbers can be worked out on paper."""

import numpy as np
import pytest

from triage.finding import Calibration, ModelSpec, OperatingPoint
from triage.reading import calibrated, components_of, key_slabs, logit, read_maps, score_at, study_score

SPACING_MM = (5.0, 10.0, 10.0)  # a voxel is 0.5 mL
IDENTITY = Calibration(score_ml=1.0, slope=1.0, intercept=0.0)  # the probability is the score


def spec(*, line=0.5, voxel=0.5, smallest_ml=1.0, calibration=IDENTITY):
    point = OperatingPoint(
        study_probability=line, voxel_probability=voxel, smallest_component_ml=smallest_ml, rule="a test's"
    )
    return ModelSpec(
        name="test",
        rows=8,
        columns=8,
        spacing_mm=SPACING_MM,
        context=1,
        operating_point=point,
        calibration=calibration,
        training_data_sha256="0" * 64,
        code_version="0",
    )


def maps(*boxes, shape=(6, 8, 8)):
    probability = np.zeros(shape, np.float32)
    for box, value in boxes:
        probability[box] = value
    return probability


def test_score_is_the_mean_of_the_highest_millilitre():
    probability = maps(((0, 0, 0), 0.9), ((3, 4, 4), 0.5), ((5, 7, 7), 0.1))

    assert study_score(probability, voxel_ml=0.5, score_ml=1.0) == pytest.approx(0.7)  # two voxels of 0.5 mL


def test_score_of_a_study_smaller_than_the_score_volume_is_the_mean_of_all():
    assert study_score(np.full((1, 2, 2), 0.25, np.float32), voxel_ml=0.5, score_ml=100.0) == pytest.approx(0.25)


def test_calibration_is_platt_scaling():
    calibration = Calibration(score_ml=1.0, slope=2.0, intercept=-1.0)

    assert calibrated(0.5, calibration) == pytest.approx(1 / (1 + np.e))  # sigmoid(2 * 0 - 1)


def test_score_at_is_the_inverse_of_calibrated():
    calibration = Calibration(score_ml=1.0, slope=1.7, intercept=0.4)

    assert score_at(calibrated(0.3, calibration), calibration) == pytest.approx(0.3)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_probability_of_an_extreme_score_is_finite(score):
    assert 0.0 < calibrated(score, IDENTITY) < 1.0
    assert np.isfinite(logit(score))


def test_components_are_counted_in_millilitres_largest_first():
    probability = maps((np.s_[0, 0:2, 0:2], 0.8), (np.s_[3:5, 4:8, 4:8], 0.7))

    found = components_of(probability, SPACING_MM, spec().operating_point)

    assert [component.volume_ml for component in found] == [16.0, 2.0]  # 32 and 4 voxels
    assert [component.slab_range for component in found] == [(3, 4), (0, 0)]
    assert found[0].largest_probability == pytest.approx(0.7)


def test_regions_that_touch_by_a_corner_are_one():
    probability = maps(((0, 0, 0), 0.9), ((1, 1, 1), 0.9))

    [component] = components_of(probability, SPACING_MM, spec().operating_point)

    assert component.volume_ml == 1.0


def test_component_below_the_smallest_volume_does_not_count():
    probability = maps(((0, 0, 0), 0.9))

    assert components_of(probability, SPACING_MM, spec(smallest_ml=0.6).operating_point) == ()


def test_key_slabs_have_most_suspected_blood_first():
    probability = maps((np.s_[2, 0:3, 0], 0.6), (np.s_[4, 0:5, 0], 0.6), ((1, 0, 0), 0.4))

    assert key_slabs(probability, spec().operating_point) == (4, 2, 1)


def test_study_at_the_line_is_flagged():
    reading = read_maps(maps((np.s_[1, 0, 0:2], 0.5)), SPACING_MM, spec(line=0.5))

    assert reading.flagged
    assert reading.probability == pytest.approx(0.5)
    assert reading.volume_ml == 1.0


def test_study_below_the_line_names_no_region():
    reading = read_maps(maps((np.s_[1, 0:4, 0:4], 0.6)), SPACING_MM, spec(line=0.7))

    assert not reading.flagged
    assert (reading.volume_ml, reading.components) == (0, ())
    assert reading.key_slabs[0] == 1


def test_flagged_study_never_shows_zero_millilitres():
    faint = maps((np.s_[1, 0:4, 0:4], 0.3))  # below the voxel's line, above the study's

    reading = read_maps(faint, SPACING_MM, spec(line=0.2, voxel=0.5))

    assert reading.flagged
    assert reading.volume_ml == 8.0


def test_volume_is_the_sum_of_the_components():
    probability = maps((np.s_[0, 0:2, 0:2], 0.8), (np.s_[3:5, 4:8, 4:8], 0.7))

    reading = read_maps(probability, SPACING_MM, spec())

    assert reading.volume_ml == sum(component.volume_ml for component in reading.components) == 18.0
