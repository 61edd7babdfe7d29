"""Views of the list that a reader keeps."""

from __future__ import annotations

from triage.ledger.saved_views import MOST_VIEWS, SavedViews


def views(ledger, username="reader"):
    return [(view.name, view.query) for view in SavedViews(ledger).of(username)]


def test_kept_view_stands_on_the_list_and_leads_back(radiologist, ledger):
    kept = radiologist.post("/views", {"name": "Failed ones", "query": "?view=all&state=failed"})

    assert kept.location == "/list?view=all&state=failed"
    assert "Failed ones" in radiologist.get("/list").get_data(as_text=True)


def test_view_of_the_same_name_is_replaced(radiologist, ledger):
    radiologist.post("/views", {"name": "Mine", "query": "?q=a"})
    radiologist.post("/views", {"name": "Mine", "query": "?q=b"})

    assert views(ledger) == [("Mine", "?q=b")]


def test_only_what_a_query_can_say_is_kept(radiologist, ledger):
    radiologist.post("/views", {"name": "Odd", "query": "?q=x&next=https://evil.example&sort=nonsense&page=7"})

    assert views(ledger) == [("Odd", "?q=x")]


def test_views_are_ones_own(radiologist, person, ledger):
    radiologist.post("/views", {"name": "Mine", "query": "?q=a"})
    other = person("other")

    other.post("/views/forget", {"name": "Mine"})

    assert "Mine</a>" not in other.get("/list").get_data(as_text=True)
    assert views(ledger) == [("Mine", "?q=a")]


def test_view_can_be_forgotten(radiologist, ledger):
    radiologist.post("/views", {"name": "Mine", "query": "?q=a"})

    radiologist.post("/views/forget", {"name": "Mine"})

    assert views(ledger) == []


def test_view_needs_a_name_and_there_are_not_endlessly_many(radiologist, ledger):
    assert radiologist.post("/views", {"name": "\u202e ", "query": "?q=a"}).status_code == 400
    statuses = [
        radiologist.post("/views", {"name": f"view {number}", "query": "?q=a"}).status_code
        for number in range(MOST_VIEWS + 1)
    ]

    assert statuses == [303] * MOST_VIEWS + [409]
