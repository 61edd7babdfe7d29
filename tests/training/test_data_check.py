"""`ich-triage data check` and `data convert`: what they report, leave out, repair and refuse."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from tests.training import data_sets
from training.data_check import ScanCheck, SplitSource, find_leaks
from training.data_cli import data
from training.patients import LeakingPatient, fold_of, patient_key, refuse_leaks
from training.scan_faults import FaultAction, ScanFault
from training.settings import read_settings, source_at
from training.shards import read_scans


def walked(*chosen):
    check = ScanCheck()
    kept = [[scan.name for scan in check.walk(each) if scan.scan is not None] for each in chosen]
    return check, kept


def faults(tally):
    return [(finding.scan, finding.fault, finding.action) for finding in tally.findings]


def run_toml(tmp_path, **splits):
    """Write a run that names (kind, folder, folds) in each split."""
    lines = [f'folder = "{tmp_path}/run"', "[grid]", "rows = 48", "columns = 48", "spacing_mm = [5.0, 5.0, 5.0]"]
    for split, sources in splits.items():
        for kind, folder, folds in sources:
            lines += [f"[[{split}]]", f'kind = "{kind}"', f'folder = "{folder}"', f"folds = {list(folds)}"]
    path = tmp_path / "run.toml"
    path.write_text("\n".join(lines))
    return path


def test_same_image_twice_is_left_out_once(tmp_path):
    folder = data_sets.write_instance(tmp_path)
    for part in ("data", "label"):
        shutil.copy(folder / "train_2" / part / "001.nii.gz", folder / "train_2" / part / "003.nii.gz")

    check, [kept] = walked(SplitSource("source", source_at("instance", folder)))

    assert kept == ["001", "002"]
    assert faults(check.tallies[0]) == [("003", ScanFault.DUPLICATE_IMAGE, FaultAction.DROPPED)]
    assert check.tallies[0].findings[0].measured == "the same voxels as scan 001 of instance"


def test_patient_in_two_sources_stays_in_the_first(tmp_path):
    rsna = SplitSource("source", source_at("rsna", data_sets.write_rsna(tmp_path / "rsna")))
    bhsd = SplitSource("source", source_at("bhsd", data_sets.write_bhsd(tmp_path / "bhsd")))

    check, kept = walked(rsna, bhsd)

    assert [len(names) for names in kept] == [2, 0]
    assert faults(check.tallies[1])[0][1] is ScanFault.DUPLICATE_PATIENT
    assert "is in rsna too" in check.tallies[1].findings[0].measured


def test_patient_in_two_splits_is_an_error_with_both_names(tmp_path):
    rsna = SplitSource("source", source_at("rsna", data_sets.write_rsna(tmp_path / "rsna")))
    bhsd = SplitSource("test", source_at("bhsd", data_sets.write_bhsd(tmp_path / "bhsd")))

    leak = find_leaks([rsna, bhsd])

    assert "patient ID_0a1b2c3d of rsna in source is patient ID_0a1b2c3d of bhsd in test" in leak
    with pytest.raises(LeakingPatient, match="patient 7 of a in source is patient 7 of a in validation"):
        refuse_leaks({"source": [("a", "7")], "validation": [("a", "8"), ("a", "7")]})
    refuse_leaks({"source": [("a", "7"), ("b", "7")], "validation": [("b", "8")]})


def test_people_are_known_across_forms_of_one_set():
    assert patient_key("ct-ich", "049") == patient_key("ct-ich-nifti", "49") == patient_key("ct-ich, pasted", "49")
    assert patient_key("rsna", "ID_1") == patient_key("bhsd", "ID_1") != patient_key("cq500", "ID_1")
    assert {fold_of(f"rsna:{number}") for number in range(100)} == {0, 1, 2, 3, 4}


def test_check_prints_counts_and_writes_a_page_of_its_own(tmp_path):
    folder = data_sets.write_instance(tmp_path / "set")
    (folder / "train_2" / "data" / "002.nii.gz").write_bytes(b"broken")

    result = CliRunner().invoke(data, ["check", f"instance:{folder}", "--page", str(tmp_path / "check.html")])

    page = (tmp_path / "check.html").read_text()
    assert result.exit_code == 0, result.output
    assert re.search(r"undecodable\s+│ dropped\s+│\s+1", result.output)
    assert re.search(r"found\s+│\s+│\s+2", result.output)
    assert "<td>002<td>undecodable<td>dropped" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_check_of_a_run_fails_where_the_images_of_a_scan_leak(tmp_path):
    first, second = data_sets.write_instance(tmp_path / "a"), tmp_path / "b"
    hu, mask = data_sets.bleeding_head(1)
    data_sets.save_nifti(second / "imagesTr" / "ID_ffffffff_ID_eeeeeeeeee.nii.gz", hu)
    data_sets.save_nifti(second / "labelsTr" / "ID_ffffffff_ID_eeeeeeeeee.nii.gz", mask * 2)
    config = run_toml(tmp_path, source=[("instance", first, range(5))], test=[("bhsd", second, range(5))])

    result = CliRunner().invoke(data, ["check", str(config)])

    assert result.exit_code == 1
    assert "ID_ffffffff_ID_eeeeeeeeee of bhsd in test has the images of scan 001 of instance in source" in result.output


def test_convert_leaves_out_and_repairs(tmp_path):
    folder = data_sets.write_instance(tmp_path / "set")
    hu, mask = data_sets.bleeding_head(4)
    mask[6, 0, :6] = True
    data_sets.save_nifti(folder / "train_2" / "data" / "004.nii.gz", hu)
    data_sets.save_nifti(folder / "train_2" / "label" / "004.nii.gz", mask)
    (folder / "train_2" / "data" / "002.nii.gz").write_bytes(b"broken")
    config = run_toml(tmp_path, source=[("instance", folder, range(5))])

    result = CliRunner().invoke(data, ["convert", str(config)])

    settings = read_settings(config)
    [converted] = [path for path in settings.shards_folder.iterdir() if not path.name.startswith(".")]
    scans = {scan.patient: scan for scan in read_scans(converted)}
    assert result.exit_code == 0, result.output
    assert set(scans) == {"001", "004"}
    assert json.loads((converted / "source.json").read_text())["patients"] == [["instance", "001"], ["instance", "004"]]
    assert re.search(r"mask over air\s+│ repaired\s+│\s+1", result.output)
    assert np.count_nonzero(scans["004"].blood[6, :9]) == 0  # the six voxels over air lay there


def test_convert_refuses_a_shared_patient_before_it_writes(tmp_path):
    rsna, bhsd = data_sets.write_rsna(tmp_path / "rsna"), data_sets.write_bhsd(tmp_path / "bhsd")
    config = run_toml(tmp_path, source=[("rsna", rsna, range(5))], validation=[("bhsd", bhsd, range(5))])

    result = CliRunner().invoke(data, ["convert", str(config)])

    assert result.exit_code == 1
    assert "patient ID_0a1b2c3d of rsna in source is patient ID_0a1b2c3d of bhsd in validation" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("rsna", "rsna names no source; expected KIND:FOLDER"),
        ("kaggle:/data", "kaggle is no kind of source; known are ct-ich, ct-ich-nifti, rsna"),
        ("instance:/nowhere", "/nowhere is not INSTANCE 2022: it has no data"),
    ],
)
def test_source_that_cannot_be_is_named(source, said):
    result = CliRunner().invoke(data, ["check", source])

    assert result.exit_code == 1
    assert said in result.output
