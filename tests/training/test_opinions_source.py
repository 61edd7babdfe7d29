"""The source of what a site's readers said of results."""

from __future__ import annotations

import json

import pytest

from tests.builders import ct_series, write_files
from training.adapters import dicom_seg
from training.cleansing import checked
from training.labelled_scan import LabelStrength
from training.patients import fold_of, patient_key
from training.scan_faults import BadScan
from training.settings import RunSettings
from training.source_settings import OpinionsSource
from training.sources import cases_of, read_source
from triage.errors import ConfigError
from triage.volume import Grid

EVERY_FOLD = tuple(range(5))


def write_table(folder, *lines):
    (folder / "opinions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def line(images, *, bleed=True, study="s1"):
    return {"study": study, "patient": "p1", "bleed": bleed, "images": images, "flagged": True, "opinions": []}


@pytest.fixture
def images(tmp_path):
    write_files(ct_series(slices=20), tmp_path / "instances")
    return [f"instances/{path.name}" for path in sorted((tmp_path / "instances").iterdir())]


def cases(folder):
    return list(cases_of(OpinionsSource(folder=folder, folds=EVERY_FOLD)))


@pytest.mark.parametrize("bleed", [True, False])
def test_study_comes_with_the_label_of_its_readers(tmp_path, images, bleed):
    write_table(tmp_path, line(images, bleed=bleed))

    [case] = cases(tmp_path)
    scan = checked(case)

    assert (scan.study_bleed, scan.strength) == (bleed, LabelStrength.STUDY)
    assert scan.volume.hu.shape == (20, 64, 64)
    assert not scan.mask.any()


def test_study_whose_label_is_open_is_left_out(tmp_path, images):
    write_table(tmp_path, line(images, bleed=None, study="open"), line(images, study="sure"))

    assert [case.name for case in cases(tmp_path)] == ["sure"]


def test_patient_has_the_key_and_fold_of_the_sites_segmentations(tmp_path, images):
    write_table(tmp_path, line(images))

    [case] = cases(tmp_path)

    key = patient_key(dicom_seg.SOURCE, case.patient)
    assert patient_key(case.source, case.patient) == key
    assert case.fold == fold_of(key)
    assert case.patient not in ("p1", "P0001")


def test_images_that_are_gone_are_named(tmp_path, images):
    (tmp_path / images[3]).unlink()
    write_table(tmp_path, line(images))

    with pytest.raises(BadScan, match="1 of 20 images are gone from the store"):
        cases(tmp_path)[0].read()


@pytest.mark.parametrize("text", ["{", '{"study": "s1"}\n', "[]"])
def test_line_that_is_no_study_is_named(tmp_path, text):
    (tmp_path / "opinions.jsonl").write_text(text)

    with pytest.raises(ConfigError, match="line 1 is no study"):
        cases(tmp_path)


def test_study_reaches_the_models_grid(tmp_path, images):
    write_table(tmp_path, line(images))

    [slabs] = read_source(OpinionsSource(folder=tmp_path, folds=EVERY_FOLD), Grid(64, 64, (5.0, 3.5, 3.5)))

    assert slabs.bleed
    assert len(slabs.hu) == 20


def test_run_names_it_as_a_source(tmp_path):
    run = RunSettings(folder=tmp_path, source=[{"kind": "opinions", "folder": tmp_path}])

    assert run.source == (OpinionsSource(folder=tmp_path),)
