"""What readers say of results, as labels for training and as figures of agreement."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from training.adapters.readers import reader_cases
from triage.ledger.feedback import Disagreement, Feedback
from worklist_ui.opinions import labels_of, share
from worklist_ui.opinions_cli import opinions


def give(ledger, study, reader="reader", *, reason=None, note="", now=1.0):
    Feedback(ledger).give(study.study_id, reader, revision=study.revision, reason=reason, note=note, now=now)


def labels(ledger):
    return [label.bleed for label in labels_of(Feedback(ledger).judged())]


@pytest.mark.parametrize(
    ("flagged", "reason", "bleed"),
    [
        (True, None, True),
        (False, None, False),
        (True, Disagreement.ARTEFACT, False),
        (True, Disagreement.CALCIFICATION, False),
        (True, Disagreement.TUMOUR, False),
        (True, Disagreement.POST_OPERATIVE, None),
        (True, Disagreement.CHRONIC, None),
        (True, Disagreement.OTHER, None),
        (True, Disagreement.MISSED_BLEED, True),
        (False, Disagreement.MISSED_BLEED, True),
        (False, Disagreement.ARTEFACT, None),
    ],
)
def test_opinion_is_a_label_where_one_follows_from_it(department, ledger, flagged, reason, bleed):
    give(ledger, department.analyse(flagged=flagged), reason=reason)

    assert labels(ledger) == [bleed]


def test_readers_who_contradict_each_other_leave_the_label_open(department, ledger):
    study = department.analyse(flagged=True)
    give(ledger, study, "one")
    give(ledger, study, "two", reason=Disagreement.CHRONIC)
    assert labels(ledger) == [True]  # open is no contradiction

    give(ledger, study, "three", reason=Disagreement.CALCIFICATION)

    assert labels(ledger) == [None]


def test_opinion_counts_on_a_later_run_of_the_same_images_and_no_longer_on_other_images(department, ledger, queue):
    study = department.analyse(flagged=True)
    give(ledger, study)
    queue.queue_again(study.study_instance_uid, actor="tech", now=department.now)
    department.find(department.again(study), flagged=False)
    assert labels(ledger) == [True]

    department.receive_more(study)

    assert labels(ledger) == []


@pytest.fixture
def config(department):
    path = department.folder / "triage.toml"
    path.write_text(f'[storage]\nfolder = "{department.folder}"\n')
    return path


def exported(config, folder):
    done = CliRunner().invoke(opinions, ["export", str(folder), "--config", str(config)])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in (folder / "opinions.jsonl").read_text().splitlines()]


def test_export_names_nobody_and_says_where_the_images_lie(department, ledger, config, tmp_path):
    study = department.analyse("Doe^Jane", flagged=True, slices=3)
    give(
        ledger,
        study,
        "dr.house",
        reason=Disagreement.CALCIFICATION,
        note="Mrs Doe's choroid plexus",
        now=1_767_340_000.0,
    )
    other = department.analyse("Roe^Richard", flagged=False, patient_id=study.header.patient_id)
    give(ledger, other, "dr.house")

    first, second = exported(config, tmp_path / "out")

    assert (first["bleed"], second["bleed"]) == (False, False)
    assert first["patient"] == second["patient"]
    assert first["study"] != second["study"]
    assert first["opinions"] == [
        {
            "reader": second["opinions"][0]["reader"],
            "at": "2026-01-02T07:46:40+00:00",
            "agrees": False,
            "reason": "calcification",
        }
    ]
    images = [(tmp_path / "out" / name).resolve() for name in first["images"]]
    kept = department.studies.instances_of(study.study_instance_uid)
    assert images == [(department.folder / instance.path).resolve() for instance in kept]
    text = (tmp_path / "out" / "opinions.jsonl").read_text()
    for name in ("Doe", "house", "choroid", study.header.patient_id, '"' + study.study_instance_uid):
        assert name not in text


def test_trainer_reads_what_was_exported(department, ledger, config, tmp_path):
    give(ledger, department.analyse(flagged=True, slices=20))
    give(ledger, department.analyse(flagged=True, slices=20), reason=Disagreement.ARTEFACT)
    give(ledger, department.analyse(flagged=True, slices=20), reason=Disagreement.OTHER)
    lines = exported(config, tmp_path / "out")

    cases = list(reader_cases(tmp_path / "out"))

    assert [case.name for case in cases] == [lines[0]["study"], lines[1]["study"]]
    assert [case.read().study_bleed for case in cases] == [True, False]


def test_page_counts_agreement_by_version_with_intervals(department, ledger, person):
    for reason in (None, None, None, Disagreement.CALCIFICATION):
        give(ledger, department.analyse(flagged=True), reason=reason)
    give(ledger, department.analyse(flagged=False), reason=Disagreement.MISSED_BLEED)
    scientist = person("scientist", role="data_scientist")

    page = scientist.get("/", follow_redirects=True).get_data(as_text=True)

    assert "ich_unet 1" in page
    assert "3 of 4" in page
    assert "75 % (95 % interval 30 to 95 %)" in page
    assert "0 of 1" in page
    assert "calcification 1, missed bleed 1" in page
    assert "Doe" not in page
    assert scientist.get("/list").status_code == 403


def test_share_has_wilsons_interval():
    assert share(0, 0) is None
    half = share(5, 10)
    assert (round(half.low, 3), round(half.high, 3)) == (0.237, 0.763)  # the textbook's example
