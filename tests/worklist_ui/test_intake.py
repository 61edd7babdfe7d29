"""How images come in, as who looks after the PACS sees it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from triage.ledger.intake import Intake, Quarantined
from triage.ledger.reconciliation import Coverage, Gap, GapState, Reconciliations
from triage.settings import ListenerSettings, ReconcileSettings
from worklist_ui import intake
from worklist_ui.services import EXTENSION


@pytest.fixture
def administrator(person):
    return person("admin", role="administrator")


def coverage(department, *, present=312, expected=312, ago_s=60.0, error="", gaps=()):
    today = datetime.fromtimestamp(department.now).astimezone().date().isoformat()
    at = department.now - ago_s
    complete = 9 - len(gaps)
    return Coverage(at - 5, at, today, today, 9, complete, expected, present, 0, error, tuple(gaps))


def banner(person):
    return person.get("/list").get_data(as_text=True).partition('id="banner">')[2].partition('id="summary"')[0]


def test_comparison_that_found_everything_is_one_line_and_no_alarm(department, ledger, administrator):
    Reconciliations(ledger).record(coverage(department))

    page = administrator.get("/intake").get_data(as_text=True)

    assert "312 of 312 images, 9 of 9 head CTs, today" in page
    assert "Nothing to see to." in page
    assert "See the intake" not in banner(administrator)


@pytest.mark.parametrize("state", [GapState.MISSING, GapState.FETCH_FAILED, GapState.GIVEN_UP])
def test_images_that_only_the_pacs_has_are_said_above_the_list_and_named_on_the_page(
    department, ledger, administrator, state
):
    # "Every series analysed must equal every series the PACS has that day", and 127 of 180 images received.
    study = department.analyse("Doe^Jane", flagged=False)
    gap = Gap(study.study_instance_uid, "20260102", 180, 127, state, attempts=2, detail="the PACS answered 0xA801")
    Reconciliations(ledger).record(coverage(department, present=259, gaps=[gap]))

    page = administrator.get("/intake").get_data(as_text=True)

    assert "The PACS has 53 images of 1 study that did not come here." in banner(administrator)
    for part in (f'/studies/{study.study_id}/"><bdi>Doe, Jane', ">127<", ">180<", "the PACS answered 0xA801"):
        assert part in page


def test_images_that_arrive_just_now_are_no_alarm(department, ledger, administrator):
    gap = Gap("1.2.3", "20260102", 30, 10, GapState.ARRIVING)
    Reconciliations(ledger).record(coverage(department, present=292, gaps=[gap]))

    assert "did not come here" not in banner(administrator)
    assert "Arriving now" in administrator.get("/intake").get_data(as_text=True)


def test_comparison_that_failed_or_is_late_is_said(department, ledger, administrator):
    Reconciliations(ledger).record(coverage(department, ago_s=3 * 3600, error="the PACS refused the association."))

    shown = banner(administrator)

    assert "could not be finished: the PACS refused the association." in shown
    assert "The last comparison with the PACS ended 3 h 00 min ago; one every 60 min is set." in shown


def test_what_could_not_be_taken_is_shown_with_its_reason(department, ledger, administrator, app):
    # Every image that was accepted has a visible state: in a study, among the conflicts, or in quarantine.
    study = department.receive()
    Intake(ledger).quarantine(
        Quarantined(Path("quarantine/x"), 77, department.now, "CT<b>7", 0xC000, "no SOP Instance UID")
    )
    with ledger.transaction() as db:
        db.execute(
            "INSERT INTO conflicts (sop_instance_uid, study_instance_uid, path, size_bytes, blake3, received_at,"
            " calling_ae_title) VALUES ('1.2', ?, 'p', 5, 's', ?, 'CT99')",
            [study.study_instance_uid, department.now],
        )

    page = administrator.get("/intake").get_data(as_text=True)

    for part in (
        "3 images in studies",
        "1 conflicting, 1 in quarantine",
        "no SOP Instance UID",
        "0xC000",
        "CT&lt;b&gt;7",
    ):
        assert part in page
    assert "1 object of the last 24 h could not be taken as images." in banner(administrator)
    assert "1 image of the last 24 h came again with other content." in banner(administrator)
    department.now += 86_401
    assert app.extensions[EXTENSION].intake.concerns() == ()


@pytest.mark.parametrize(
    ("free", "says"),
    [
        (1_900_000_000, "The disk is full: 1.9 GB free"),
        (3_900_000_000, "The disk fills up: 3.9 GB free"),
        (4_100_000_000, None),
    ],
)
def test_disk_is_said_to_fill_up_before_images_are_refused(free, says):
    least = ListenerSettings().min_free_bytes
    seen = intake.Intake(None, 0, 0, 0, (), (), free, least, ())

    said = intake.concerns_of(seen, ReconcileSettings(), now=0.0)

    assert [line.startswith(says) for line in said] == [True] if says else said == ()


def test_radiologists_are_not_bothered_with_the_intake(department, ledger, radiologist):
    Reconciliations(ledger).record(coverage(department, error="the PACS is away."))

    assert "See the intake" not in banner(radiologist)
    assert radiologist.get("/intake").status_code == 403
