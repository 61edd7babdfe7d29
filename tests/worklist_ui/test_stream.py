"""Server-sent events: the open list hears of every change."""

from __future__ import annotations

import json
import threading
import time

import pytest

from triage.settings import WorklistSettings


class Events:
    """The events of one open stream."""

    def __init__(self, person, query=""):
        self.response = person.get(f"/list/stream{query}", buffered=False)
        assert self.response.status_code == 200
        self._parts = iter(self.response.response)

    def next_page(self):
        for part in self._parts:
            lines = part.decode().splitlines()
            if lines[0] == "event: page":
                return json.loads(lines[1].removeprefix("data: "))
        return None

    def close(self):
        self.response.close()


@pytest.fixture
def events(radiologist):
    opened = []

    def open_stream(query=""):
        opened.append(Events(radiologist, query))
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
