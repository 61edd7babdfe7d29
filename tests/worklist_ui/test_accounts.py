"""Accounts in the browser."""

from __future__ import annotations

import re

import pytest

from tests.worklist_ui.conftest import PASSWORD
from triage.ledger.users import Users


@pytest.fixture
def administrator(person):
    return person("chief", role="administrator")


def test_invited_person_opens_the_account_with_the_link(administrator, person, ledger):
    page = administrator.post("/accounts", {"username": "New.Reader", "role": "radiologist"}).get_data(as_text=True)
    link = re.search(r"http://localhost(/link/[\w-]+)", page).group(1)

    person().post(link, {"password": PASSWORD, "again": PASSWORD})

    assert [(user.username, user.role) for user in Users(ledger).all()][-1] == ("new.reader", "radiologist")


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"username": "<b>", "role": "radiologist"}, 400),
        ({"username": "x", "role": "emperor"}, 400),
        ({"username": "chief", "role": "radiologist"}, 409),
    ],
)
def test_bad_invitation_is_refused(administrator, form, status):
    assert administrator.post("/accounts", form).status_code == status


def test_closed_account_is_out_and_comes_back(administrator, radiologist):
    administrator.post("/accounts/reader/disable")
    out = radiologist.get("/list").status_code
    administrator.post("/accounts/reader/enable")

    assert out == 303
    assert radiologist.sign_in("reader").status_code == 303


def test_role_changes_at_once(administrator, radiologist):
    administrator.post("/accounts/reader/role", {"role": "auditor"})

    assert radiologist.get("/list").status_code == 403


@pytest.mark.parametrize("step", ["disable", "role"])
def test_nobody_shuts_themselves_out(administrator, step, ledger):
    response = administrator.post(f"/accounts/chief/{step}", {"role": "auditor"})

    assert response.status_code == 400
    assert Users(ledger).by_name("chief").role == "administrator"
    assert not Users(ledger).by_name("chief").disabled


def test_unknown_account_is_not_there(administrator):
    assert administrator.post("/accounts/nobody/reset").status_code == 404
