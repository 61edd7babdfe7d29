"""What readers say of results, and studies handed over."""

from __future__ import annotations

import pytest

from triage.ledger.feedback import Disagreement, Feedback
from triage.study import ReadingState


def opinions(department, study):
    return [
        (opinion.reader, opinion.agrees, opinion.reason)
        for opinion in Feedback(department.ledger).opinions_on(study.study_instance_uid)
    ]


def test_reader_agrees(department, radiologist):
    study = department.analyse(flagged=True)

    radiologist.post(f"/studies/{study.study_id}/agree", {"revision": 1})

    assert opinions(department, study) == [("reader", True, None)]
    assert "reader agrees" in radiologist.get(f"/studies/{study.study_id}/").get_data(as_text=True)


@pytest.mark.parametrize("reason", Disagreement)
def test_reader_disagrees_with_each_reason(department, radiologist, reason):
    study = department.analyse(flagged=True)

    answer = radiologist.post(f"/studies/{study.study_id}/disagree", {"revision": 1, "reason": reason.value}, json=True)

    assert answer.get_json()["answer"] == "done"
    assert opinions(department, study) == [("reader", False, reason)]


def test_disagreement_without_a_known_reason_is_refused(department, radiologist):
    study = department.analyse(flagged=True)

    answer = radiologist.post(f"/studies/{study.study_id}/disagree", {"revision": 1, "reason": "tired"}, json=True)

    assert answer.status_code == 400
    assert "missed_bleed" in answer.get_json()["message"]
    assert opinions(department, study) == []


def test_later_opinion_supersedes_the_earlier_one_of_the_same_reader(department, radiologist, person):
    study = department.analyse(flagged=True)
    person("other").post(f"/studies/{study.study_id}/agree", {"revision": 1})
    radiologist.post(f"/studies/{study.study_id}/agree", {"revision": 1})

    radiologist.post(f"/studies/{study.study_id}/disagree", {"revision": 1, "reason": "chronic"})

    assert opinions(department, study) == [("other", True, None), ("reader", False, Disagreement.CHRONIC)]


def test_same_opinion_twice_is_kept_once(department, radiologist):
    study = department.analyse(flagged=True)

    answers = [
        radiologist.post(f"/studies/{study.study_id}/agree", {"revision": 1}, json=True).get_json()["answer"]
        for _ in range(2)
    ]

    assert answers == ["done", "already"]


def test_opinion_can_be_withdrawn(department, radiologist):
    study = department.analyse(flagged=True)
    radiologist.post(f"/studies/{study.study_id}/agree", {"revision": 1})

    radiologist.post(f"/studies/{study.study_id}/withdraw")

    assert opinions(department, study) == []
    kinds = [event.kind for event in department.studies.events_of(study.study_instance_uid)]
    assert kinds[-2:] == ["agreed", "opinion_withdrawn"]


def test_opinion_on_a_result_that_is_no_more_is_refused(department, radiologist):
    study = department.analyse(flagged=True)
    department.receive_more(study)

    answer = radiologist.post(f"/studies/{study.study_id}/agree", {"revision": 1}, json=True)

    assert answer.status_code == 409
    assert opinions(department, study) == []


def test_study_without_a_finding_takes_no_opinion(department, radiologist):
    study = department.queue()

    assert radiologist.post(f"/studies/{study.study_id}/agree", {"revision": 1}, json=True).status_code == 409


def test_supervisor_gives_a_claimed_study_to_another_reader(department, radiologist, person):
    study = department.analyse(flagged=True)
    radiologist.post(f"/studies/{study.study_id}/claim")
    person("other")

    person("chief", role="supervisor").post(f"/studies/{study.study_id}/reassign", {"to": "other"})

    held = department.again(study)
    assert (held.reading_state, held.claimed_by) == (ReadingState.CLAIMED, "other")


@pytest.mark.parametrize("to", ["nobody", "tech", ""])
def test_study_is_given_to_readers_only(department, person, to):
    study = department.analyse(flagged=True)
    person("tech", role="technologist")

    answer = person("chief", role="supervisor").post(f"/studies/{study.study_id}/reassign", {"to": to}, json=True)

    assert answer.status_code == 400
    assert department.again(study).claimed_by == ""
