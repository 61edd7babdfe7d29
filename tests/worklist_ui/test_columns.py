"""Columns: the reader chooses and orders them, and sorts by each, however long the list is."""

from __future__ import annotations

import re

import pytest

from tests.worklist_ui.pages import read_list
from triage.ledger.saved_views import SavedViews
from worklist_ui.api.models import Sort
from worklist_ui.columns import COLUMNS, DEFAULT, chosen, offered

HEAD = re.compile(r'<th scope="col" class="(\w+)')


def heads(person, query=""):
    return HEAD.findall(person.get(f"/list{query}").get_data(as_text=True))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (["reader", "model", "patient", "state"], ("reader", "model", "patient", "state")),
        (["model", "model", "nonsense", "age"], ("state", "patient", "model", "age", "reader")),
        (["nonsense", ""], ()),
    ],
)
def test_columns_are_known_each_once_and_the_fixed_ones_stay(asked, shown):
    assert chosen(asked) == shown


def test_columns_not_shown_are_offered_where_they_usually_stand():
    order = offered(("reader", "patient", "state"))

    assert sorted(order) == sorted(COLUMNS)
    assert order[:2] == ("reader", "patient")
    assert order.index("patient_id") == order.index("patient") + 1
    assert order.index("priority") == order.index("state") + 1


def test_programs_sort_by_the_same_columns():
    assert [sort.value for sort in Sort] == list(COLUMNS)


def test_view_shows_the_columns_of_its_address(department, radiologist):
    department.analyse(flagged=True, stat=True)

    page = radiologist.get("/list?columns=state,priority,patient,age,accession,waiting,model,reader")
    [row] = read_list(page.get_data(as_text=True)).rows

    assert heads(radiologist, "?columns=model,state,patient,reader") == ["model", "state", "patient", "reader"]
    assert row.text.startswith("▲ Flagged STAT Doe, Jane P0001 69 y F A0001 0.0 s ich_unet 1")


def test_columns_for_all_views_are_kept_on_the_server(radiologist, person):
    answer = radiologist.post("/views/columns", {"column": ["patient", "state", "waiting", "reader"], "query": "?q=x"})

    assert answer.location == "/list?q=x"
    assert heads(radiologist) == heads(radiologist, "?view=all") == ["patient", "state", "waiting", "reader"]
    assert heads(person("other")) == list(DEFAULT)
    radiologist.post("/views/columns", {"query": "?q=x"})
    assert heads(radiologist) == list(DEFAULT)


def test_columns_for_one_view_are_kept_with_it(radiologist, ledger):
    answer = radiologist.post("/views/columns", {"column": ["model"], "scope": "view", "query": "?state=failed"})
    radiologist.post("/views", {"name": "Failed", "query": answer.location.removeprefix("/list")})

    assert SavedViews(ledger).of("reader")[0].query == "?state=failed&columns=state,patient,model,reader"
    assert heads(radiologist, SavedViews(ledger).of("reader")[0].query) == ["state", "patient", "model", "reader"]
    assert heads(radiologist) == list(DEFAULT)


@pytest.fixture(scope="module")
def differing():
    """Headers and numbers of 120 studies, no two neighbours alike, in an order that is none of them."""
    return [(index * 47) % 120 for index in range(120)]


def test_every_column_sorts_far_above_a_hundred_studies(department, radiologist, differing):
    # What readers of other lists complain of: sorting that stops at 100 studies, and columns that nobody can choose.
    for number in differing:
        department.receive(
            f"Name{number:03d}^A", at=department.now + number, slices=1, patient_id=f"ID{number:03d}",
            patient_age=f"{number:03d}D", accession_number=f"AC{number:03d}", study_description=f"CT {number:03d}",
        )  # fmt: skip
    department.now += 200

    def first(sort):
        page = read_list(radiologist.get(f"/list?sort={sort}&columns=patient").get_data(as_text=True))
        return page.rows[0].text.split(", A")[0].split()[-1]

    for sort in ("patient", "patient_id", "age", "study", "accession", "arrival"):
        assert (first(sort), first(f"{sort}&desc=1")) == ("Name000", "Name119")
    assert (first("waiting"), first("waiting&desc=1")) == ("Name119", "Name000")


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_loses_a_study_when_it_is_sorted_by(department, radiologist, column):
    ids = [department.analyse("A^A", flagged=True, stat=True).study_id, department.receive("B^B").study_id]

    for query in (f"?sort={column}", f"?sort={column}&desc=1"):
        rows = read_list(radiologist.get(f"/list{query}").get_data(as_text=True)).rows
        assert sorted(row.study_id for row in rows) == ids
