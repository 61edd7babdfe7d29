"""The list: every study, in one state each, flagged first."""

from __future__ import annotations

import pytest

from tests.worklist_ui.pages import read_list
from triage.settings import WorklistSettings
from triage.study import NotAnalysedReason


def listed(person, query=""):
    response = person.get(f"/list{query}")
    assert response.status_code == 200
    return read_list(response.get_data(as_text=True))


def every_state(department):
    """Put one study of each state on the list; gives their ids by standing."""
    return {
        "not_flagged": department.analyse(flagged=False).study_id,
        "flagged": department.analyse(flagged=True).study_id,
        "not_analysed": department.refuse(
            department.queue(), NotAnalysedReason.BONE_KERNEL, "kernel H60s; expected a soft one"
        ).study_id,
        "failed": department.fail(department.queue(), "The worker ended 3 times.").study_id,
        "running": department.start(department.queue()).study.study_id,
        "queued": department.queue().study_id,
        "receiving": department.receive().study_id,
    }


def test_every_study_received_is_shown_in_one_state(department, radiologist):
    ids = every_state(department)

    page = listed(radiologist)

    assert {row.standing: row.study_id for row in page.rows} == ids
    assert page.counts == {"received": 7, **dict.fromkeys(ids, 1)}


def test_counts_still_hold_when_studies_are_read(department, radiologist):
    study = department.analyse(flagged=True)
    department.analyse(flagged=False)

    radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1})

    assert len(listed(radiologist).rows) == 1
    assert len(listed(radiologist, "?view=history").rows) == 1
    assert len(listed(radiologist, "?view=all").rows) == listed(radiologist).counts["received"] == 2


def test_flagged_study_stands_above_those_that_came_before(department, radiologist):
    first = department.analyse("First^A", flagged=False)
    department.now += 60
    bleed = department.analyse("Bleed^B", flagged=True)
    department.now += 60
    last = department.queue("Last^C")

    assert [row.study_id for row in listed(radiologist).rows] == [bleed.study_id, first.study_id, last.study_id]


def test_row_says_what_was_found(department, radiologist):
    department.analyse("Doe^Jane", flagged=True, probability=0.93, slices=30)

    [row] = listed(radiologist).rows

    for part in (
        "Flagged",
        "Doe, Jane",
        "P0001",
        "69 y F",
        "A0001",
        "CT99",
        "30 images",
        "93 %",
        "12.3 mL",
        "ich_unet 1",
    ):
        assert part in row.text


def test_row_says_why_a_study_was_not_analysed(department, radiologist):
    department.refuse(department.queue(), NotAnalysedReason.TOO_FEW_SLICES, "3 slices; expected at least 12")

    [row] = listed(radiologist).rows

    assert "Not analysed Too few slices: 3 slices; expected at least 12" in row.text


def test_study_without_a_flag_shows_no_millilitres(department, radiologist):
    department.analyse(flagged=False)

    [row] = listed(radiologist).rows

    assert "mL" not in row.text


def test_raised_flag_stays_on_top_while_late_images_come(department, radiologist):
    department.analyse("Old^A", flagged=False)
    department.now += 60
    bleed = department.analyse("Bleed^B", flagged=True)
    department.now += 60
    department.receive_more(bleed)

    top = listed(radiologist).rows[0]

    assert (top.study_id, top.standing) == (bleed.study_id, "receiving")
    assert "Flag raised" in top.text


def test_flag_that_a_later_analysis_does_not_find_is_not_lowered(department, radiologist):
    department.analyse("Old^A", flagged=False)
    bleed = department.analyse("Bleed^B", flagged=True)
    department.find(department.complete(department.receive_more(bleed)), flagged=False)

    top = listed(radiologist).rows[0]

    assert top.study_id == bleed.study_id
    assert "Flag raised" in top.text
    assert "see its earlier analyses" in top.text


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?q=lind", ["Lindqvist^Erik"]),
        ("?q=p0002", ["Tanaka^Yuki"]),
        ("?q=a0001+erik", ["Lindqvist^Erik"]),
        ("?q=nobody", []),
        ("?state=not_flagged", ["Tanaka^Yuki"]),
        ("?sort=patient", ["Lindqvist^Erik", "Tanaka^Yuki"]),
        ("?sort=patient&desc=1", ["Tanaka^Yuki", "Lindqvist^Erik"]),
        ("?view=mine", []),
        ("?view=nonsense&state=nonsense&sort=nonsense&page=-3", ["Lindqvist^Erik", "Tanaka^Yuki"]),
    ],
)
def test_query_selects_and_sorts(department, radiologist, query, names):
    ids = {
        "Lindqvist^Erik": department.analyse("Lindqvist^Erik", flagged=True).study_id,
        "Tanaka^Yuki": department.analyse("Tanaka^Yuki", flagged=False).study_id,
    }

    assert [row.study_id for row in listed(radiologist, query).rows] == [ids[name] for name in names]


class TestPages:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(rows_per_page=10)

    def test_long_list_comes_in_pages_without_loss(self, department, radiologist):
        ids = [department.receive(at=department.now + number).study_id for number in range(23)]

        seen = [[row.study_id for row in listed(radiologist, f"?page={page}").rows] for page in (1, 2, 3)]

        assert [len(page) for page in seen] == [10, 10, 3]
        assert [study_id for page in seen for study_id in page] == ids

    def test_page_beyond_the_last_is_the_last(self, department, radiologist):
        ids = [department.receive(at=department.now + number).study_id for number in range(11)]

        assert [row.study_id for row in listed(radiologist, "?page=99").rows] == ids[10:]


def test_hostile_header_is_text_and_short(department, radiologist):
    department.receive("<script>alert(1)</script>^\u202eevil\x00", patient_id="<b>" + "9" * 65536)

    html = radiologist.get("/list").get_data(as_text=True)

    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\u202e" not in html
    assert "\x00" not in html
    assert len(html) < 30_000


def test_overdue_study_says_why_it_stands_among_the_flagged(department, person):
    department.analyse("Old^A", flagged=False)
    department.now += 241 * 60
    department.analyse("Bleed^B", flagged=True)
    department.analyse("Fresh^C", flagged=False)

    overdue = {row.standing + str("Overdue" in row.text) for row in listed(person("reader")).rows}

    assert overdue == {"not_flaggedTrue", "flaggedFalse", "not_flaggedFalse"}


def test_next_study_is_the_first_that_this_reader_may_take(department, radiologist, person):
    bleed = department.analyse(flagged=True)
    taken = department.analyse(flagged=True)
    routine = department.analyse(flagged=False)
    person("other").post(f"/studies/{taken.study_id}/claim")

    assert radiologist.get("/list/next").location == f"/studies/{bleed.study_id}/"
    assert radiologist.get(f"/list/next?beside={bleed.study_id}").location == f"/studies/{routine.study_id}/"
    for study in (bleed, routine):
        radiologist.post(f"/studies/{study.study_id}/read", {"revision": 1})
    assert radiologist.get("/list/next").location == "/list"


def test_banner_says_that_the_model_is_away(department, radiologist, queue):
    department.queue()
    queue.report(owner="w", model_available=False, detail="UNAVAILABLE", now=department.now)

    page = radiologist.get("/list").get_data(as_text=True)

    assert "The model does not answer." in page
    assert "1 study waits for it" in page


def test_banner_goes_when_the_model_is_back(department, radiologist, queue):
    department.queue()
    queue.report(owner="w", model_available=False, detail="UNAVAILABLE", now=department.now)
    radiologist.get("/list")
    department.now += 2
    queue.report(owner="w", model_available=True, detail="", now=department.now)

    assert "does not answer" not in radiologist.get("/list").get_data(as_text=True)


def test_banner_says_that_no_worker_takes_what_is_queued(department, radiologist):
    department.queue()
    department.now += 61

    assert "No worker runs." in radiologist.get("/list").get_data(as_text=True)


def test_study_deleted_from_the_ledger_leaves_the_list(department, radiologist, ledger):
    study = department.analyse(flagged=True)
    assert len(listed(radiologist).rows) == 1

    with ledger.transaction() as db:
        db.execute("DELETE FROM studies WHERE study_id = ?", [study.study_id])

    assert listed(radiologist).rows == []
    assert radiologist.get(f"/studies/{study.study_id}/").status_code == 404


def test_result_is_noted_as_shown_when_it_first_stands_on_a_list(department, radiologist):
    study = department.analyse(flagged=True)
    department.now += 7
    radiologist.get("/list")
    department.now += 7
    radiologist.get("/list")

    assert department.again(study).shown_at - study.found_at == 7


def test_receiving_study_is_not_noted_as_shown(department, radiologist):
    study = department.receive()

    radiologist.get("/list")

    assert department.again(study).shown_at is None


def test_rows_give_the_page_as_json_and_nothing_when_it_is_known(department, radiologist):
    study = department.analyse(flagged=True)

    page = radiologist.get("/list/rows").get_json()

    assert page["order"] == [study.study_id]
    assert page["flags"] == 1
    assert "12.3 mL" in page["rows"][str(study.study_id)]
    assert radiologist.get(f"/list/rows?version={page['version']}").status_code == 204
