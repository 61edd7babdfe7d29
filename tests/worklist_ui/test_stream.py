"""Server-sent events: the open list hears of every change."""

from __future__ import annotations

import json
import threading
import time

import pytest

from triage.settings import WorklistSettings


class Events:
    """The events of one open stream."""

    def __init__(self, person, query="", path="/list/stream"):
        self.response = person.get(f"{path}{query}", buffered=False)
        assert self.response.status_code == 200
        self._parts = iter(self.response.response)

    def next_page(self, event="page"):
        for part in self._parts:
            lines = part.decode().splitlines()
            if lines[0] == f"event: {event}":
                return json.loads(lines[1].removeprefix("data: "))
        return None

    def close(self):
        self.response.close()


@pytest.fixture
def events(radiologist):
    opened = []

    def open_stream(query="", **options):
        opened.append(Events(radiologist, query, **options))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close()


def test_stream_begins_with_the_whole_page(department, events):
    study = department.analyse(flagged=True)

    page = events().next_page()

    assert page["order"] == [study.study_id]
    assert list(page["rows"]) == [str(study.study_id)]


def test_change_of_one_row_costs_one_row_and_comes_within_a_second(department, events):
    others = [department.analyse(flagged=False).study_id for _ in range(3)]
    waiting = department.queue()
    stream = events()
    stream.next_page()

    changed_at = time.monotonic()
    department.find(waiting, flagged=True)
    page = stream.next_page()

    assert time.monotonic() - changed_at < 1.0
    assert page["order"] == [waiting.study_id, *others]
    assert list(page["rows"]) == [str(waiting.study_id)]
    assert page["flags"] == 1


def test_pages_beside_the_list_hear_of_new_flags(department, events):
    waiting = department.queue()
    stream = events(path="/list/flags")
    assert stream.next_page("flags") == {"flags": 0, "last_flag": 0.0}

    department.queue("Nothing^New")
    department.find(waiting, flagged=True)

    assert stream.next_page("flags") == {"flags": 1, "last_flag": department.now}


def test_stream_keeps_the_columns_that_the_page_was_drawn_with(department, events, radiologist):
    study = department.analyse(flagged=True)
    stream = events("?columns=state,patient,model,reader")
    radiologist.post("/views/columns", {"column": ["images"]})

    row = stream.next_page()["rows"][str(study.study_id)]

    assert row.count("<td") == 4
    assert 'class="model"' in row


def test_stream_follows_its_own_query(department, events):
    department.analyse("Other^A", flagged=True)
    stream = events("?q=wanted")

    assert stream.next_page()["order"] == []
    wanted = department.receive("Wanted^B")
    assert stream.next_page()["order"] == [wanted.study_id]


def test_stream_of_a_closed_account_ends(department, events, person):
    stream = events()
    stream.next_page()
    chief = person("chief", role="administrator")
    assert chief.username == "chief"

    chief.client.application.extensions["ich_triage"].users.disable("reader")
    department.receive()

    assert stream.next_page() is None


def test_closing_ends_open_streams(app, events):
    stream = events()
    stream.next_page()
    threading.Timer(0.1, app.extensions["ich_triage"].live.close).start()

    assert stream.next_page() is None


class TestFull:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(open_lists=1)

    def test_one_stream_too_many_is_told_to_poll(self, events, radiologist):
        events().next_page()

        assert radiologist.get("/list/stream").status_code == 503

    def test_closed_stream_makes_room(self, events):
        first = events()
        first.next_page()
        first.close()

        assert events().next_page() is not None
