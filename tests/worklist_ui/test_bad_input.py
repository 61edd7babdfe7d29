"""What comes in wrong: hostile headers, studies that are gone, stale claims, clocks that jump."""

from __future__ import annotations

import pytest

from tests.worklist_ui.pages import read_list
from triage.study import ReadingState
from worklist_ui.rate_limit import RateLimit

DAY_S = 86_400.0
HOSTILE = {
    "html": "<script>alert(1)</script>^<img src=x onerror=alert(2)>",
    "attribute": '"><b onmouseover="alert(1)">^x',
    "direction marks": "\u202egnp.enaJ^\u2066Doe\u2069",
    "control characters": "Doe\x00\x1b[31m^Ja\x08ne",
    "64 KB": "D" * 65_536 + "^Jane",
    "wrong character set": "D\u00c3\u00a9^J\ufffdne",
    "template": "{{ 7 * 7 }}^${7*7}",
    "nothing": "",
    "only separators": "^^^^=^^^=",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_header_is_short_plain_text_on_every_page(department, radiologist, person, name):
    # XSS in a study list is what users of other lists have reported.
    study = department.analyse(
        name, flagged=True, study_description=name, accession_number=name, patient_id=name, patient_sex=name,
        patient_age=name,
    )  # fmt: skip
    administrator = person("admin", role="administrator")
    every = "state,priority,patient,patient_id,age,study,accession,from,images,arrival,waiting,probability,volume,model"

    for page in (
        radiologist.get(f"/list?columns={every}"),
        radiologist.get("/list", query_string={"q": name[:100]}),
        radiologist.get(f"/studies/{study.study_id}/"),
        administrator.get("/audit", query_string={"patient_id": name[:100]}),
        administrator.get("/intake"),
    ):
        html = page.get_data(as_text=True)
        assert page.status_code == 200
        for forbidden in ("<script>alert", "<img src=x", "<b onmouseover", "\u202e", "\u2066", "\x00", "\x1b", "$49"):
            assert forbidden not in html
        assert ">49<" not in html
        assert len(html) < 60_000
    assert len(read_list(radiologist.get("/list").get_data(as_text=True)).rows) == 1
    assert radiologist.get("/list/rows").get_json()["order"] == [study.study_id]
    assert radiologist.get(f"/api/v1/studies/{study.study_id}").status_code == 200


class TestDeletedStudy:
    @pytest.fixture
    def opened(self, department, radiologist, ledger):
        """A study that a reader has open and that is then deleted."""
        study = department.analyse(flagged=True)
        assert radiologist.get(f"/studies/{study.study_id}/").status_code == 200
        radiologist.post(f"/studies/{study.study_id}/claim")
        with ledger.transaction() as db:
            db.execute("DELETE FROM studies WHERE study_id = ?", [study.study_id])
        return study

    @pytest.mark.parametrize("step", ["claim", "release", "read", "undo", "agree", "disagree", "withdraw"])
    def test_every_step_says_that_it_is_gone(self, opened, radiologist, step):
        answer = radiologist.post(
            f"/studies/{opened.study_id}/{step}", {"revision": 1, "reason": "artefact"}, json=True
        )

        assert (answer.status_code, answer.get_json()["answer"]) == (404, "gone")
        assert answer.get_json()["message"] == "There is no such study any more."

    def test_browser_without_script_comes_back_to_the_list(self, opened, radiologist):
        answer = radiologist.post(f"/studies/{opened.study_id}/read", {"revision": 1, "from": "study"})

        assert answer.location == "/list"
        assert "There is no such study any more." in radiologist.get("/list").get_data(as_text=True)

    def test_pictures_are_gone_too(self, opened, radiologist):
        assert radiologist.get(f"/studies/{opened.study_id}/slices/0.jpg").status_code == 404


class TestStaleClaim:
    def test_reader_whose_claim_lapsed_does_not_read_over_the_next_one(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        other = person("other")
        radiologist.post(f"/studies/{study.study_id}/claim")
        department.now += 31 * 60
        other.post(f"/studies/{study.study_id}/claim")

        late = radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1}, json=True)

        assert late.status_code == 409
        assert late.get_json()["message"] == "Not marked: other has the study."
        assert department.again(study).claimed_by == "other"

    def test_reader_whose_claim_lapsed_may_still_read_what_nobody_else_took(self, department, radiologist):
        study = department.analyse(flagged=True)
        radiologist.post(f"/studies/{study.study_id}/claim")
        department.now += 31 * 60

        done = radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1}, json=True)

        assert done.status_code == 200
        assert department.again(study).reading_state is ReadingState.READ


class TestClockThatJumps:
    def test_claim_of_a_clock_that_was_a_day_ahead_does_not_last_a_day(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        department.now += DAY_S / 4
        ahead = person("ahead")
        ahead.post(f"/studies/{study.study_id}/claim")
        department.now -= DAY_S / 4  # set right again

        taken = person("other").post(f"/studies/{study.study_id}/claim", json=True)

        assert taken.status_code == 200
        assert department.again(study).claimed_by == "other"

    def test_claim_survives_a_clock_that_is_set_back_by_minutes(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        radiologist.post(f"/studies/{study.study_id}/claim")
        department.now -= 10 * 60

        taken = person("other").post(f"/studies/{study.study_id}/claim", json=True)

        assert taken.status_code == 409
        assert department.again(study).claimed_by == "reader"

    def test_session_of_a_clock_that_was_far_ahead_ends(self, department, radiologist):
        department.now -= DAY_S

        assert radiologist.get("/list").status_code == 303

    def test_lock_of_a_clock_that_was_far_ahead_ends(self, department, person, ledger):
        person("reader")
        stranger = person()
        for _ in range(5):
            stranger.sign_in("reader", "wrong wrong wrong")
        assert stranger.sign_in("reader").status_code == 401

        department.now -= DAY_S

        assert stranger.sign_in("reader").status_code == 303

    def test_tries_of_a_clock_that_was_far_ahead_do_not_count(self):
        limit = RateLimit(1, per_s=60)
        assert limit.allows("192.0.2.1", now=DAY_S)
        assert not limit.allows("192.0.2.1", now=DAY_S - 30)

        assert limit.allows("192.0.2.1", now=0.0)

    @pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
    def test_list_stays_whole_and_in_order(self, department, person, jump_s):
        first = department.analyse(flagged=False)
        department.now += 60
        bleed = department.analyse(flagged=True)
        department.now += jump_s
        last = department.queue(at=department.now)

        page = read_list(person("reader").get("/list").get_data(as_text=True))

        ids = [row.study_id for row in page.rows]
        assert ids[0] == bleed.study_id
        assert sorted(ids[1:]) == [first.study_id, last.study_id]
        assert page.counts["received"] == 3
