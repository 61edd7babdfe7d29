"""The JSON API: what it gives, what it refuses, and that its document tells the truth."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.builders import ct_series
from tests.worklist_ui.ledger_fill import Department
from tests.worklist_ui.programs import keep, program, token_for
from triage.ledger import Ledger
from triage.ledger.audit import AuditTrail
from triage.settings import Settings, StorageSettings, WorklistSettings
from triage.study import NotAnalysedReason
from worklist_ui.api import operations
from worklist_ui.api.openapi import document
from worklist_ui.app import create_app
from worklist_ui.scopes import Scope

API = "/api/v1"


@pytest.fixture
def reader(app, ledger):
    """A program that acts for a radiologist."""
    return program(app, ledger, *Scope, username="reader", role="radiologist")


@pytest.fixture
def other(app, ledger):
    return program(app, ledger, *Scope, username="other", role="radiologist")


def ids(response):
    assert response.status_code == 200, response.json
    return [study["study_id"] for study in response.json["studies"]]


class TestList:
    def test_studies_come_in_reading_order_with_counts(self, reader, department):
        first = department.analyse(flagged=False)
        department.now += 60
        bleed = department.analyse(flagged=True)

        response = reader.get(f"{API}/studies")

        assert ids(response) == [bleed.study_id, first.study_id]
        assert (response.json["received"], response.json["found"], response.json["pages"]) == (2, 2, 1)
        assert sum(response.json["counts"].values()) == 2

    def test_study_is_told_with_units_and_times(self, reader, department):
        department.analyse("Doe^Jane", flagged=True, probability=0.93)

        [study] = reader.get(f"{API}/studies").json["studies"]

        assert study["patient"] == {
            "name": "Doe^Jane", "patient_id": "P0001", "birth_date": "", "sex": "F", "age": "069Y"
        }  # fmt: skip
        assert (study["state"], study["probability"], study["volume_ml"]) == ("flagged", 0.93, 12.3)
        assert study["first_image_at"] == "2026-01-02T07:46:40Z"

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("state=not_analysed", ["B^B"]),
            ("q=a%5Ea", ["A^A"]),
            ("view=history", []),
            ("view=all&sort=patient&descending=true", ["B^B", "A^A"]),
            ("limit=1", ["A^A"]),
            ("limit=1&page=2", ["B^B"]),
            ("limit=1&page=3", []),
        ],
    )
    def test_filters_and_pages(self, reader, department, query, found):
        department.analyse("A^A", flagged=True)
        department.refuse(department.queue("B^B"), NotAnalysedReason.BONE_KERNEL, "kernel H60s")

        studies = reader.get(f"{API}/studies?{query}").json["studies"]

        assert [study["patient"]["name"] for study in studies] == found

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("page=0", "page: Input should be greater"),
            ("limit=501", "limit: Input should be less"),
            ("state=lost", "state: Input should be 'flagged'"),
            ("colour=red", "colour: Extra inputs are not permitted"),
            ("page=1&page=2", "page is given more than once"),
        ],
    )
    def test_query_that_makes_no_sense_is_explained(self, reader, query, says):
        response = reader.get(f"{API}/studies?{query}")

        assert (response.status_code, response.content_type) == (400, "application/problem+json")
        assert says in response.json["detail"]

    def test_reason_of_a_refusal_is_told(self, reader, department):
        department.refuse(department.queue(), NotAnalysedReason.BONE_KERNEL, "kernel H60s; expected a soft one")

        [study] = reader.get(f"{API}/studies").json["studies"]

        assert study["not_analysed_reason"] == "bone_kernel"
        assert "kernel H60s" in study["detail"]


def test_one_study_with_its_history(reader, department):
    study = department.analyse(flagged=True)
    reader.post(f"{API}/studies/{study.study_id}/claim")

    found = reader.get(f"{API}/studies/{study.study_id}").json

    assert found["study"]["study_id"] == study.study_id
    assert [analysis["outcome"] for analysis in found["analyses"]] == ["analysed"]
    assert [(event["kind"], event["actor"]) for event in found["events"]][-1] == ("claimed", "reader")


@pytest.mark.parametrize("number", [999, 2**63, 2**200])
@pytest.mark.parametrize("step", ["claim", "release", "undo", "read", "feedback"])
def test_unknown_study_is_not_there(reader, step, number):
    body = {"read": {"revision": 1}, "feedback": {"revision": 1, "agrees": True}}.get(step)

    assert reader.get(f"{API}/studies/{number}").status_code == 404
    assert reader.post(f"{API}/studies/{number}/{step}", body).status_code == 404


class TestSteps:
    @pytest.fixture
    def study(self, department):
        return department.analyse(flagged=True)

    @pytest.fixture
    def step(self, study):
        return lambda who, name, body=None: who.post(f"{API}/studies/{study.study_id}/{name}", body)

    def test_two_programs_never_get_the_same_claim(self, step, reader, other):
        first, again, second = step(reader, "claim"), step(reader, "claim"), step(other, "claim")

        assert [each.status_code for each in (first, again, second)] == [200, 200, 409]
        assert (first.json["answer"], again.json["answer"]) == ("done", "already")
        assert second.json["detail"] == "Nothing was done: reader has the study."

    def test_claim_can_be_released(self, step, reader, other):
        step(reader, "claim")

        assert step(other, "release").status_code == 409
        assert step(reader, "release").json["study"]["reading_state"] == "unread"
        assert step(other, "claim").status_code == 200

    def test_read_and_undo(self, step, reader, other):
        read = step(reader, "read", {"revision": 1})

        assert read.json["study"]["reading_state"] == "read"
        assert read.json["study"]["read_by"] == "reader"
        assert step(other, "undo").status_code == 409
        assert step(reader, "undo").json["study"]["reading_state"] == "unread"

    def test_read_of_an_old_revision_is_void(self, step, reader, department, study):
        department.receive_more(study)

        response = step(reader, "read", {"revision": 1})

        assert response.status_code == 409
        assert department.again(study).read_by == ""

    def test_feedback_is_kept_with_its_reason(self, step, reader, study):
        response = step(reader, "feedback", {"revision": 1, "agrees": False, "reason": "tumour", "note": "seen before"})

        [opinion] = reader.get(f"{API}/studies/{study.study_id}").json["feedback"]
        assert response.status_code == 200
        assert (opinion["reader"], opinion["agrees"], opinion["reason"]) == ("reader", False, "tumour")

    @pytest.mark.parametrize(
        "body",
        [
            {"revision": 1, "agrees": False},
            {"revision": 1, "agrees": True, "reason": "tumour"},
            {"revision": 1, "agrees": False, "reason": "boredom"},
            {"revision": 1, "agrees": "yes"},
            {"revision": "1", "agrees": True},
            {"revision": 1, "agrees": True, "note": "x" * 501},
            {"revision": 1, "agrees": True, "study": 7},
            {},
            [],
        ],
    )
    def test_feedback_that_makes_no_sense_is_refused(self, step, reader, study, body):
        assert step(reader, "feedback", body).status_code == 400
        assert reader.get(f"{API}/studies/{study.study_id}").json["feedback"] == []

    def test_body_must_be_json(self, reader, study):
        response = reader.client.post(
            f"{API}/studies/{study.study_id}/read",
            data={"revision": 1},
            headers={"Authorization": f"Bearer {reader.secret}"},
        )

        assert response.status_code == 415

    def test_steps_need_a_scope_and_a_role(self, app, ledger, step):
        watcher = program(app, ledger, Scope.STUDIES_READ, username="watcher", role="radiologist")
        service = program(app, ledger, *Scope)

        assert step(watcher, "claim").status_code == 403
        assert step(service, "claim").status_code == 403

    def test_page_of_another_site_cannot_use_a_session(self, radiologist, study):
        """A browser's session is asked for the CSRF token; a program's token cannot be forged by a page."""
        forged = radiologist.client.post(f"{API}/studies/{study.study_id}/claim")
        meant = radiologist.post(f"{API}/studies/{study.study_id}/claim")

        assert (forged.status_code, forged.content_type) == (400, "application/problem+json")
        assert meant.status_code == 200

    def test_steps_stand_in_the_audit_trail(self, step, reader, study, ledger):
        step(reader, "claim")
        reader.get(f"{API}/studies/{study.study_id}")

        deeds = [record.deed for record in AuditTrail(ledger).records()]

        assert [(deed.actor, deed.action, deed.patient_id) for deed in deeds] == [
            ("reader", "claim", "P0001"),
            ("reader", "view_study", "P0001"),
        ]


class Stream:
    """One open stream of changes."""

    def __init__(self, who, query="", **headers):
        headers["Authorization"] = f"Bearer {who.secret}"
        self.response = who.client.get(f"{API}/events{query}", headers=headers, buffered=False)
        assert self.response.status_code == 200
        self._parts = iter(self.response.response)

    def next_event(self):
        """Give id, kind and data of the next event; None at the end."""
        for part in self._parts:
            lines = dict(
                line.split(": ", 1) for line in part.decode().splitlines() if not line.startswith(":") and line
            )
            if lines:
                return int(lines.get("id", 0)), lines["event"], json.loads(lines["data"])
        return None


@pytest.fixture
def stream(reader):
    opened = []

    def open_stream(query="", **headers):
        opened.append(Stream(reader, query, **headers))
        return opened[-1]

    yield open_stream
    for each in reversed(opened):  # their contexts lie on each other
        each.response.close()


class TestChanges:
    def test_change_comes_within_a_second_and_alone(self, department, stream):
        department.analyse(flagged=False)
        waiting = department.queue()
        changes = stream()
        newest, kind, data = changes.next_event()
        assert (kind, len(data["studies"])) == ("studies", 2)

        changed_at = time.monotonic()
        department.find(waiting, flagged=True)
        number, _, data = changes.next_event()

        assert time.monotonic() - changed_at < 1.0
        assert number > newest
        assert [study["study_id"] for study in data["studies"]] == [waiting.study_id]
        assert data["studies"][0]["state"] == "flagged"

    def test_client_that_comes_back_misses_nothing_and_hears_nothing_twice(self, department, stream):
        department.analyse(flagged=False)
        newest, _, _ = stream().next_event()
        late = department.analyse(flagged=True)

        _, _, by_header = stream(**{"Last-Event-ID": str(newest)}).next_event()
        _, _, by_query = stream(f"?after={newest}").next_event()

        assert [study["study_id"] for study in by_header["studies"]] == [late.study_id]
        assert by_query == by_header

    def test_study_that_is_gone_is_named(self, department, stream, ledger):
        study = department.receive()
        changes = stream()
        changes.next_event()

        with ledger.transaction() as db:
            db.execute("DELETE FROM studies WHERE study_id = ?", [study.study_id])

        assert changes.next_event()[1:] == ("gone", [study.study_id])

    def test_stream_ends_when_the_token_is_revoked(self, app, department, stream):
        department.receive()
        changes = stream()
        changes.next_event()

        app.extensions["ich_triage"].tokens.revoke(1, now=department.now)
        department.receive()

        assert changes.next_event() is None

    def test_stream_ends_with_the_process(self, app, department, stream):
        department.receive()
        changes = stream()
        changes.next_event()
        threading.Timer(0.1, app.extensions["ich_triage"].live.close).start()

        assert changes.next_event() is None


class TestFull:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(open_lists=1)

    def test_one_stream_too_many_is_refused(self, department, reader, stream):
        department.receive()
        stream().next_event()

        response = reader.get(f"{API}/events")

        assert (response.status_code, response.content_type) == (503, "application/problem+json")


class TestDocument:
    def test_every_route_is_in_the_document_and_nothing_else(self, app):
        routes = {
            (re.sub(r"<int\(.*\):(\w+)>", r"{\1}", rule.rule.removeprefix(API)), method.lower())
            for rule in app.url_map.iter_rules()
            if rule.endpoint.startswith("api.") and rule.endpoint not in ("api.openapi", "api.reference")
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }

        assert {(path, method) for path, item in document()["paths"].items() for method in item} == routes
        assert len(routes) == len(operations.OPERATIONS) == 8

    def test_every_reference_leads_to_a_schema(self):
        text = json.dumps(document())
        defined = set(document()["components"]["schemas"])

        named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

        assert named <= defined

    def test_page_can_be_read_without_a_script(self, radiologist):
        response = radiologist.get(f"{API}/")
        html = response.get_data(as_text=True)

        assert response.status_code == 200
        assert all(operation.summary in html for operation in operations.OPERATIONS.values())
        assert "https://" not in html.replace("https://www.w3.org", "")
        assert "unsafe" not in response.headers["Content-Security-Policy"]

    def test_stranger_reads_neither(self, person):
        assert person().get(f"{API}/openapi.json").status_code == 401
        assert person().get(f"{API}/").status_code == 401


def test_address_that_is_not_there_and_wrong_method_are_problems(reader):
    assert (reader.get(f"{API}/nothing").status_code, reader.get(f"{API}/nothing").content_type) == (
        404,
        "application/problem+json",
    )
    assert reader.post(f"{API}/studies").status_code == 405


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The API as schemathesis sees it: by its document, over a list with studies in several states."""
    folder = tmp_path_factory.mktemp("described")
    ledger = Ledger(folder / "ledger.sqlite")
    department = Department(folder, ledger)
    department.analyse(flagged=True)
    department.refuse(department.queue(), NotAnalysedReason.BONE_KERNEL, "kernel H60s")
    keep(department, ct_series(slices=1))
    app = create_app(
        Settings(storage=StorageSettings(folder=folder), worklist=WorklistSettings()), ledger, secret_key=b"k" * 32
    )
    headers = {"Authorization": f"Bearer {token_for(ledger, *Scope, username='reader', role='radiologist')}"}
    found = schemathesis.openapi.from_wsgi(f"{API}/openapi.json", app, headers=headers)
    found.config.update(headers=headers)
    yield found
    app.extensions["ich_triage"].live.close()
    ledger.close()


DESCRIBED = [
    (method, path)
    for path, item in document()["paths"].items()
    for method in item
    if path != "/events"  # has no end
]
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    positive_data_acceptance,
    negative_data_rejection,
)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), DESCRIBED)
def test_api_does_what_its_document_says(described, method, path, mode):
    operation = described[path][method.upper()]

    @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(checks=CHECKS)

    check()


def test_page_for_people_names_every_operation_and_sets_code_as_code(radiologist):
    page = radiologist.get("/api/v1/").get_data(as_text=True)

    document = radiologist.get("/api/v1/openapi.json").get_json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert f'<a href="#{operation["operationId"]}">' in page
            assert f"<code>{path}</code>" in page
    assert "<code>Authorization: Bearer</code>" in page
    assert "`" not in page
