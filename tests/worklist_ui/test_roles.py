"""Every route against every role."""

from __future__ import annotations

from pathlib import Path

import pytest

import worklist_ui
from worklist_ui.roles import PERMISSIONS, ROUTES, Permission, Role, may

ARGUMENTS = {"study_id": 1, "slice_index": 0, "token": "x", "filename": "worklist.css", "username": "reader"}
STREAMS = frozenset({"reading_list.stream", "reading_list.flags", "api.events"})


def addresses(app):
    """Give endpoint, method and address of every route."""
    with app.test_request_context():
        builder = app.create_url_adapter(None) or app.url_map.bind("localhost")
        for rule in app.url_map.iter_rules():
            values = {name: ARGUMENTS.get(name, "1") for name in rule.arguments}
            method = "POST" if "POST" in rule.methods else "GET"
            yield rule.endpoint, method, builder.build(rule.endpoint, values)


def test_every_route_stands_in_the_table_and_the_table_has_no_other(app):
    assert {rule.endpoint for rule in app.url_map.iter_rules()} == set(ROUTES)


@pytest.mark.parametrize("role", [*Role])
def test_each_role_gets_what_the_table_says(app, person, department, role):
    department.analyse(flagged=True)
    somebody = person("somebody", role=role.value)

    for endpoint, method, address in addresses(app):
        if endpoint in STREAMS or ROUTES[endpoint] is Permission.ANYBODY or endpoint == "sign_in.leave":
            continue
        response = somebody.post(address, json=True) if method == "POST" else somebody.get(address)
        assert (response.status_code == 403) != may(role, ROUTES[endpoint]), (endpoint, response.status_code)


def test_stranger_gets_nothing_but_the_way_in(app, person, department):
    department.analyse(flagged=True)
    stranger = person()

    for endpoint, method, address in addresses(app):
        if ROUTES[endpoint] is Permission.ANYBODY:
            continue
        response = stranger.post(address, json=True) if method == "POST" else stranger.get(address)
        assert response.status_code in (303, 401), endpoint
        assert b"Doe" not in response.data


def test_readme_says_what_each_role_may():
    shown = [permission for permission in Permission if permission not in (Permission.ANYBODY, Permission.SIGNED_IN)]
    rows = [
        f"| `{role.value}` | {'; '.join(each.value for each in shown if each in PERMISSIONS[role])} |" for role in Role
    ]

    text = (Path(worklist_ui.__file__).parent / "README.md").read_text(encoding="utf-8")

    assert [row for row in rows if row not in text] == []


def test_role_that_is_unknown_gets_nothing(person, department, ledger):
    department.analyse(flagged=True)
    somebody = person("somebody")
    with ledger.transaction() as db:
        db.execute("UPDATE users SET role = 'emperor' WHERE username = 'somebody'")

    assert somebody.get("/list").status_code == 303
