"""The page of one study: what is said, and what a reader does with it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from triage.finding import SeriesChoice
from triage.ledger.work import WorkQueue
from triage.settings import WorklistSettings
from triage.study import NotAnalysedReason, ReadingState


def page_of(person, study):
    response = person.get(f"/studies/{study.study_id}/")
    assert response.status_code == 200
    return response.get_data(as_text=True)


def picture(person, study, slice_index=0, query=""):
    response = person.get(f"/studies/{study.study_id}/slices/{slice_index}.jpg{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return np.asarray(Image.open(BytesIO(response.data)))


class TestPage:
    def test_names_result_model_and_operating_point(self, department, radiologist):
        text = page_of(radiologist, department.analyse(flagged=True))

        for part in ("Doe, Jane", "Flagged", "93 %", "12.3 mL", "ich_unet version 1", "flagged from 50 %"):
            assert part in text

    def test_names_each_series_that_was_rejected_and_why(self, department, radiologist):
        study = department.queue()
        claim = department.start(study)
        bone = SeriesChoice("1.2.3", 3, "BONE H60", 30, False, NotAnalysedReason.BONE_KERNEL, "kernel H60s")
        WorkQueue(department.ledger).refuse(
            claim, NotAnalysedReason.BONE_KERNEL, "kernel H60s", now=department.now, series_choices=[bone]
        )

        text = page_of(radiologist, study)

        assert "BONE H60" in text
        assert "Bone kernel only: kernel H60s" in text
        assert "No series was read." in text

    def test_shows_the_wait_at_each_step(self, department, radiologist):
        study = department.receive()
        department.now += 20
        department.complete(study)
        department.now += 5
        department.find(department.again(study), flagged=False)

        text = page_of(radiologist, study)

        assert "+20 s" in text
        assert "+5.0 s" in text

    def test_lists_the_analyses_that_this_one_superseded(self, department, radiologist):
        study = department.analyse(flagged=True)
        department.find(department.complete(department.receive_more(study)), flagged=False)

        text = page_of(radiologist, study)

        assert "Earlier analyses" in text
        assert "revision 1: flagged, 93 %" in text

    def test_opening_is_noted_with_who_did_it(self, department, radiologist):
        study = department.analyse(flagged=True)

        page_of(radiologist, study)

        assert department.again(study).opened_at == department.now
        assert [event.actor for event in department.studies.events_of(study.study_instance_uid)][-1] == "reader"

    @pytest.mark.parametrize("study_id", ["999", "9" * 30])
    def test_unknown_study_is_a_clear_page(self, radiologist, study_id):
        response = radiologist.get(f"/studies/{study_id}/")

        assert response.status_code == 404
        assert "Not here" in response.get_data(as_text=True)


class TestViewer:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(
            viewer_url="https://pacs.example/viewer?study={study_instance_uid}&a={accession_number}"
        )

    def test_viewer_opens_at_the_study(self, department, radiologist):
        study = department.analyse(flagged=True, accession_number='A/1&x="y')

        text = page_of(radiologist, study)

        assert f"https://pacs.example/viewer?study={study.study_instance_uid}&amp;a=A%2F1%26x%3D%22y" in text


class TestPreview:
    def test_window_turns_hu_into_grey(self, department, radiologist):
        study = department.analyse(flagged=True, slices=3)  # a head of 40 HU

        brain = picture(radiologist, study)
        wide = picture(radiologist, study, query="?width=200&level=80")

        middle = brain.shape[0] // 2, brain.shape[1] // 2
        assert brain[middle] == pytest.approx(127, abs=2)  # 40 HU is the middle of 0 to 80
        assert wide[middle] == pytest.approx(76, abs=2)  # 60 of -20 to 180 is 0.3 of 255

    def test_warning_is_in_the_pixels_at_top_and_bottom(self, department, radiologist):
        study = department.analyse(flagged=True, slices=3)

        dark = picture(radiologist, study, query="?width=1&level=4000")  # whatever is bright now is the warning

        assert (dark[:40] > 200).sum() > 100
        assert (dark[-40:] > 200).sum() > 100

    @pytest.mark.parametrize("path", ["99.jpg", "0.jpg?width=0", "0.jpg?width=nan", "0.jpg?level=1e9", "-1.jpg"])
    def test_picture_that_cannot_be_is_refused(self, department, radiologist, path):
        study = department.analyse(flagged=True, slices=3)

        assert radiologist.get(f"/studies/{study.study_id}/slices/{path}").status_code in (400, 404)

    def test_study_without_a_series_read_has_no_picture(self, department, radiologist):
        study = department.queue()

        assert radiologist.get(f"/studies/{study.study_id}/slices/0.jpg").status_code == 404

    def test_images_that_are_gone_are_a_clear_answer(self, department, radiologist):
        study = department.analyse(flagged=True, slices=3)
        for file in (department.folder / "instances").iterdir():
            file.unlink()

        response = radiologist.get(f"/studies/{study.study_id}/slices/0.jpg", headers={"Accept": "application/json"})

        assert response.status_code == 404
        assert "the series cannot be read" in response.get_json()["message"]


class TestSteps:
    def test_claim_shows_who_has_the_study(self, department, radiologist):
        study = department.analyse(flagged=True)

        answer = radiologist.post(f"/studies/{study.study_id}/claim", json=True)

        assert answer.get_json() == {"answer": "done", "message": "You have the study."}
        assert "You have this study" in page_of(radiologist, study)

    def test_second_reader_does_not_get_a_claimed_study(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        other = person("other")
        radiologist.post(f"/studies/{study.study_id}/claim")

        answer = other.post(f"/studies/{study.study_id}/claim", json=True)

        assert answer.status_code == 409
        assert answer.get_json() == {"answer": "taken", "message": "reader was faster and has the study."}

    def test_form_sent_twice_is_done_once(self, department, radiologist):
        study = department.analyse(flagged=True)

        answers = [radiologist.post(f"/studies/{study.study_id}/claim", json=True).get_json() for _ in range(2)]

        assert [answer["answer"] for answer in answers] == ["done", "already"]
        events = department.studies.events_of(study.study_instance_uid)
        assert [event.kind for event in events].count("claimed") == 1

    def test_claim_that_was_not_used_is_free_again(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        radiologist.post(f"/studies/{study.study_id}/claim")
        department.now += 30 * 60 + 1
        other = person("other")

        assert other.post(f"/studies/{study.study_id}/claim", json=True).get_json()["answer"] == "done"

    def test_release_gives_the_study_back(self, department, radiologist):
        study = department.analyse(flagged=True)
        radiologist.post(f"/studies/{study.study_id}/claim")

        radiologist.post(f"/studies/{study.study_id}/release")

        assert department.again(study).reading_state is ReadingState.UNREAD

    def test_nobody_releases_or_reads_what_another_has(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        radiologist.post(f"/studies/{study.study_id}/claim")
        other = person("other")

        statuses = [
            other.post(f"/studies/{study.study_id}/{step}", {"revision": 1}, json=True).status_code
            for step in ("release", "read")
        ]

        assert statuses == [409, 409]
        assert department.again(study).claimed_by == "reader"

    def test_read_study_leaves_the_list_and_undo_brings_it_back(self, department, radiologist):
        study = department.analyse(flagged=True)

        radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1})
        read = department.again(study)
        radiologist.post(f"/studies/{study.study_id}/undo")

        assert (read.reading_state, read.read_by, read.read_at) == (ReadingState.READ, "reader", department.now)
        assert department.again(study).reading_state is ReadingState.UNREAD

    def test_nobody_undoes_what_another_has_read(self, department, radiologist, person):
        study = department.analyse(flagged=True)
        radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1})

        assert person("other").post(f"/studies/{study.study_id}/undo", json=True).status_code == 409

    def test_study_that_grew_since_it_was_opened_is_not_marked_as_read(self, department, radiologist):
        study = department.analyse(flagged=True)
        department.receive_more(study)

        answer = radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1}, json=True)

        assert answer.status_code == 409
        assert "images came since you opened it" in answer.get_json()["message"]
        assert department.again(study).reading_state is ReadingState.UNREAD

    def test_read_study_comes_back_when_late_images_arrive(self, department, radiologist):
        study = department.analyse(flagged=False)
        radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1})

        department.receive_more(study)

        assert f'data-study="{study.study_id}"' in radiologist.get("/list").get_data(as_text=True)

    def test_browser_without_script_comes_back_to_its_page_with_a_message(self, department, radiologist):
        study = department.analyse(flagged=True)

        response = radiologist.post(f"/studies/{study.study_id}/claim", {"from": "study"})

        assert response.location == f"/studies/{study.study_id}/"
        assert "You have the study." in radiologist.get(response.location).get_data(as_text=True)

    def test_supervisor_sends_a_study_to_the_model_again(self, department, person):
        study = department.fail(department.queue(), "The disk was full.")

        person("chief", role="supervisor").post(f"/studies/{study.study_id}/queue-again")

        assert department.again(study).state.value == "queued"
