"""Each source read from a tiny folder in its published layout."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest

from tests.training import data_sets
from tests.training.data_sets import BLOOD, SLICES, SPACING_MM
from training.bleeds import BleedKind
from training.labelled_scan import LabelStrength, on_grid
from training.scan_faults import BadScan, ScanFault
from training.settings import RunSettings
from training.sources import cases_of, read_source
from triage.errors import ConfigError
from triage.volume import Grid

GRID = Grid(48, 48, (5.0, 5.0, 5.0))
ALL = (0, 1, 2, 3, 4)


def source_of(kind, folder, folds=ALL):
    settings = RunSettings.model_validate(
        {"folder": folder, "source": [{"kind": kind, "folder": folder, "folds": folds}]}
    )
    return settings.source[0]


def scans_of(kind, folder):
    return {case.name: case.read() for case in cases_of(source_of(kind, folder))}


def shown_kinds(scan, index):
    return {kind for kind, shown in zip(BleedKind, scan.slice_labels[index], strict=True) if shown}


def test_instance_gives_masks_without_kinds(tmp_path):
    scans = scans_of("instance", data_sets.write_instance(tmp_path))

    scan = scans["001"]
    assert set(scans) == {"001", "002"}
    assert scan.mask[BLOOD].all()
    assert scan.mask.sum() == scan.mask[BLOOD].size
    assert (scan.volume.hu[scan.mask] == 70).all()
    assert scan.volume.spacing_mm == pytest.approx(SPACING_MM)
    assert (scan.bleed, scan.source, scan.licence) == (True, "instance", "CC BY-NC-ND 4.0")
    assert on_grid(scan, GRID).bleed


def test_bhsd_gives_kinds_and_the_patient_of_rsna(tmp_path):
    [scan] = scans_of("bhsd", data_sets.write_bhsd(tmp_path)).values()

    assert scan.patient == "ID_0a1b2c3d"
    assert shown_kinds(scan, 6) == {BleedKind.EDH}
    assert shown_kinds(scan, 7) == {BleedKind.SAH}
    assert on_grid(scan, GRID).kinds == ("SAH", "EDH")


def test_bhsd_with_other_label_values_is_refused(tmp_path):
    folder = data_sets.write_bhsd(tmp_path)
    (folder / "dataset.json").write_text('{"labels": {"1": "subdural"}}')

    with pytest.raises(ConfigError, match=r"dataset\.json is not BHSD's: 1 is subdural"):
        list(cases_of(source_of("bhsd", folder)))


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "LPI", "ARS", "SAR"])
def test_nifti_of_any_orientation_is_the_same_volume(tmp_path, axes):
    hu, mask = data_sets.bleeding_head(1)
    data_sets.save_nifti(tmp_path / "data" / "001.nii.gz", hu, axes)
    data_sets.save_nifti(tmp_path / "label" / "001.nii.gz", mask, axes)

    [scan] = scans_of("instance", tmp_path).values()

    np.testing.assert_array_equal(scan.volume.hu, hu)
    np.testing.assert_array_equal(scan.mask, mask)
    assert scan.volume.spacing_mm == pytest.approx(SPACING_MM)


def test_gantry_tilt_of_a_nifti_is_taken_out(tmp_path):
    hu, mask = data_sets.bleeding_head(1)
    data_sets.save_nifti(tmp_path / "data" / "001.nii.gz", hu, shear_mm=3.5)
    data_sets.save_nifti(tmp_path / "label" / "001.nii.gz", mask, shear_mm=3.5)

    [scan] = scans_of("instance", tmp_path).values()

    # each slice lies one pixel of 3.5 mm farther back than the one below; the seventh of 14 stays
    np.testing.assert_array_equal(scan.volume.hu[7], hu[7])
    np.testing.assert_array_equal(scan.volume.hu[8, 1:], hu[8, :-1])
    np.testing.assert_array_equal(scan.mask[6, :-1], mask[6, 1:])


def test_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused(tmp_path):
    hu, mask = data_sets.bleeding_head(1)
    data_sets.save_nifti(tmp_path / "label" / "001.nii.gz", mask)
    one, two = hu[..., None], np.stack([hu, hu], axis=-1)

    assert nifti_shape(tmp_path, one) == hu.shape
    with pytest.raises(BadScan, match=r"001: undecodable: \(64, 64, 14, 2\) voxels"):
        nifti_shape(tmp_path, two)


def nifti_shape(folder, volume):
    import nibabel

    (folder / "data").mkdir(exist_ok=True)
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1])
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0, 3).astype(np.int16), affine)
    nibabel.save(image, folder / "data" / "001.nii.gz")
    return scans_of("instance", folder)["001"].volume.hu.shape


@pytest.mark.parametrize("axes", ["LAS", "LAI"])
def test_ct_ich_nifti_labels_belong_to_their_slice(tmp_path, axes):
    scans = scans_of("ct-ich-nifti", data_sets.write_ct_ich_nifti(tmp_path, axes))

    assert set(scans) == {"049", "054"}
    assert [index for index in range(SLICES) if shown_kinds(scans["049"], index)] == [6, 7]
    assert shown_kinds(scans["049"], 6) == {BleedKind.EDH}
    assert scans["049"].mask.any(axis=(1, 2)).nonzero()[0].tolist() == [6, 7]
    assert not scans["054"].bleed


def test_ct_ich_csv_with_other_columns_is_refused(tmp_path):
    folder = data_sets.write_ct_ich_nifti(tmp_path)
    (folder / "hemorrhage_diagnosis_raw_ct.csv").write_text("PatientNumber,SliceNumber\n49,1\n")

    with pytest.raises(ConfigError, match=r"raw_ct\.csv is not ct-ich 1\.3\.1's: no column Intraventricular, Intrap"):
        list(cases_of(source_of("ct-ich-nifti", folder)))


def test_mask_without_image_and_image_without_mask_are_faults_of_their_scan(tmp_path):
    folder = data_sets.write_instance(tmp_path)
    (folder / "train_2" / "data" / "001.nii.gz").unlink()
    (folder / "train_2" / "label" / "002.nii.gz").unlink()

    faults = {}
    for case in cases_of(source_of("instance", folder)):
        with pytest.raises(BadScan) as caught:
            case.read()
        faults[case.name] = caught.value.fault

    assert faults == {"001": ScanFault.MASK_WITHOUT_IMAGE, "002": ScanFault.NO_TRUTH}


def test_nan_in_an_image_is_named(tmp_path):
    hu, mask = data_sets.bleeding_head(1)
    hu[3, 4, 5] = np.nan
    data_sets.save_nifti(tmp_path / "data" / "001.nii.gz", hu, dtype=np.float32)
    data_sets.save_nifti(tmp_path / "label" / "001.nii.gz", mask)

    with pytest.raises(ConfigError, match="001: not finite: 1 of 57344 voxels are NaN or infinite"):
        list(read_source(source_of("instance", tmp_path), GRID))


def test_truncated_nifti_is_named(tmp_path):
    folder = data_sets.write_instance(tmp_path)
    image = folder / "train_2" / "data" / "001.nii.gz"
    image.write_bytes(image.read_bytes()[:900])

    with pytest.raises(BadScan, match="001: undecodable: EOFError"):
        list(read_source(source_of("instance", folder), GRID))


def test_rsna_slices_become_series_with_labels(tmp_path):
    scans = list(scans_of("rsna", data_sets.write_rsna(tmp_path)).values())

    bleeding = next(scan for scan in scans if scan.bleed)
    slabs = on_grid(bleeding, GRID)
    assert {scan.patient for scan in scans} == {"ID_0a1b2c3d", "ID_11111111"}
    assert shown_kinds(bleeding, 6) == {BleedKind.SDH}
    assert bleeding.strength is LabelStrength.SLICES
    assert slabs.slab_bleed.nonzero()[0].tolist() == [6, 7]
    assert not slabs.blood.any()
    np.testing.assert_array_equal(bleeding.volume.hu, data_sets.head(0x0A1B))


def test_rsna_csv_of_other_rows_is_refused(tmp_path):
    folder = data_sets.write_rsna(tmp_path)
    (folder / "stage_2_train.csv").write_text("ID,Label\nID_1_fracture,1\n")

    with pytest.raises(ConfigError, match=r"stage_2_train\.csv is not RSNA 2019's: row 'ID_1_fracture'"):
        list(cases_of(source_of("rsna", folder)))


def test_rsna_label_any_that_is_not_that_of_its_kinds_is_a_contradiction(tmp_path):
    folder = data_sets.write_rsna(tmp_path)
    table = folder / "stage_2_train.csv"
    table.write_text(table.read_text().replace("_any,1", "_any,0"))

    with pytest.raises(BadScan, match="label and mask contradict: the label `any`"):
        list(read_source(source_of("rsna", folder), GRID))


def test_cq500_takes_the_majority_and_the_plain_series(tmp_path):
    scans = scans_of("cq500", data_sets.write_cq500(tmp_path))

    bleeding = scans["CQ500-CT-0"]
    assert (bleeding.study_bleed, bleeding.study_kinds) == (True, (BleedKind.SDH,))
    assert not scans["CQ500-CT-1"].bleed
    assert bleeding.strength is LabelStrength.STUDY
    np.testing.assert_array_equal(bleeding.volume.hu, data_sets.head(0))
    assert on_grid(bleeding, GRID).kinds == ("SDH",)


def test_cq500_without_one_reader_is_refused(tmp_path):
    folder = data_sets.write_cq500(tmp_path)
    table = folder / "reads.csv"
    table.write_text(table.read_text().replace("R3:ICH", "R4:ICH"))

    with pytest.raises(ConfigError, match=r"reads\.csv is not CQ500's: no column R3:ICH"):
        list(cases_of(source_of("cq500", folder)))


@pytest.mark.parametrize("tilt_mm", [0.0, 1.8])
def test_segmentation_lies_on_its_series(tmp_path, tilt_mm):
    [scan] = scans_of("dicom-seg", data_sets.write_dicom_seg(tmp_path, tilt_mm=tilt_mm)).values()

    assert (scan.volume.hu[scan.mask] == 70).all()
    assert scan.mask.sum() == (scan.volume.hu == 70).sum() == scan.mask[BLOOD].size
    assert shown_kinds(scan, 6) == {BleedKind.SDH}
    assert "P0001" not in scan.patient


def test_segmentation_by_an_algorithm_alone_is_no_truth(tmp_path):
    [case] = cases_of(source_of("dicom-seg", data_sets.write_dicom_seg(tmp_path, algorithm="AUTOMATIC")))

    with pytest.raises(BadScan, match="no mask or label: segment drawn by an algorithm alone"):
        case.read()


def test_segmentation_of_a_missing_series_is_a_mask_without_image(tmp_path):
    folder = data_sets.write_dicom_seg(tmp_path)
    shutil.rmtree(folder / "study1" / "ct")

    with pytest.raises(BadScan, match="mask without image"):
        list(read_source(source_of("dicom-seg", folder), GRID))


@pytest.mark.parametrize("kind", ["ct-ich-nifti", "rsna", "cq500", "instance", "bhsd", "dicom-seg"])
def test_folder_that_is_not_the_source_is_named(tmp_path, kind):
    (tmp_path / "note.txt").write_text("nothing here")

    with pytest.raises(ConfigError, match=f"{tmp_path.name} is no"):
        list(cases_of(source_of(kind, tmp_path)))


def test_patient_has_the_same_fold_in_every_source(tmp_path):
    rsna = data_sets.write_rsna(tmp_path / "rsna")
    bhsd = data_sets.write_bhsd(tmp_path / "bhsd")

    folds = {case.patient: case.fold for case in cases_of(source_of("rsna", rsna))}
    [drawn] = cases_of(source_of("bhsd", bhsd))

    assert drawn.fold == folds[drawn.patient]
    assert not list(cases_of(source_of("bhsd", bhsd, [fold for fold in ALL if fold != drawn.fold])))


def test_undecodable_slice_is_a_fault_of_its_series(tmp_path):
    folder = data_sets.write_rsna(tmp_path)
    first = sorted((folder / "stage_2_train").glob("*.dcm"))[0]
    ds = pydicom.dcmread(first)
    ds.PixelData = ds.PixelData[:100]
    ds.save_as(first)

    faults = []
    for case in cases_of(source_of("rsna", folder)):
        try:
            case.read()
        except BadScan as bad:
            faults.append(bad.fault)

    assert faults == [ScanFault.UNDECODABLE]
