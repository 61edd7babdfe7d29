"""Who gets in."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from tests.worklist_ui.conftest import PASSWORD
from triage.ledger.users import Users
from triage.settings import WorklistSettings


def test_stranger_is_asked_to_sign_in(person):
    response = person().get("/list")

    assert (response.status_code, response.location) == (303, "/sign-in?after=/list?")


def test_right_password_leads_to_the_list(radiologist):
    assert radiologist.get("/", follow_redirects=True).request.path == "/list"


def test_sign_in_leads_back_to_the_page_that_was_asked_for(person, radiologist):
    stranger = person()

    response = stranger.post("/sign-in", {"username": "reader", "password": PASSWORD, "after": "/list?q=doe"})

    assert response.location == "/list?q=doe"


@pytest.mark.parametrize("after", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/\tx"])
def test_sign_in_never_leads_to_another_site(person, radiologist, after):
    response = person().post("/sign-in", {"username": "reader", "password": PASSWORD, "after": after})

    assert response.location == "/"


@pytest.mark.parametrize("username", ["reader", "nobody"])
def test_wrong_name_and_wrong_password_look_the_same(person, radiologist, username):
    response = person().post("/sign-in", {"username": username, "password": "wrong"})

    assert response.status_code == 401
    assert "This name and password do not fit together." in response.get_data(as_text=True)


def test_refused_sign_in_is_logged_without_the_name_that_was_typed(person):
    with capture_logs() as lines:
        person().post("/sign-in", {"username": "my secret password", "password": "x"})

    assert [line["event"] for line in lines] == ["sign_in_refused"]
    assert "my secret password" not in json.dumps(lines)


def test_account_is_locked_after_wrong_passwords_and_free_again_later(person, radiologist, department):
    stranger = person()
    for _ in range(5):
        stranger.post("/sign-in", {"username": "reader", "password": "wrong"})

    assert stranger.sign_in("reader").status_code == 401
    department.now += 15 * 60 + 1
    assert stranger.sign_in("reader").status_code == 303


def test_right_password_forgets_earlier_wrong_ones(person, radiologist, ledger):
    stranger = person()
    for _ in range(4):
        stranger.post("/sign-in", {"username": "reader", "password": "wrong"})
    stranger.sign_in("reader")

    assert Users(ledger).by_name("reader").failed_sign_ins == 0


class TestRate:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(sign_ins_per_minute=3)

    def test_too_many_tries_from_one_address_are_refused_for_a_minute(self, person, department):
        stranger = person()
        statuses = [stranger.sign_in("nobody").status_code for _ in range(4)]
        department.now += 61

        assert statuses == [401, 401, 401, 429]
        assert stranger.sign_in("nobody").status_code == 401


def test_form_without_the_csrf_token_is_refused(person, radiologist, ledger):
    stranger = person()

    response = stranger.client.post("/sign-in", data={"username": "reader", "password": PASSWORD})

    assert response.status_code == 400
    assert "This page has expired" in response.get_data(as_text=True)


def test_sign_out_ends_the_session_also_for_a_copied_cookie(radiologist, person):
    copied = radiologist.client.get_cookie("ich-triage").value
    radiologist.post("/sign-out")
    thief = person()
    thief.client.set_cookie("ich-triage", copied)

    assert thief.get("/list").status_code == 303


def test_sign_in_gives_a_new_session(person, radiologist):
    before = radiologist.client.get_cookie("ich-triage").value
    radiologist.sign_in("reader")

    assert radiologist.client.get_cookie("ich-triage").value != before


@pytest.mark.parametrize(("waited_s", "status"), [(239 * 60, 200), (241 * 60, 303)])
def test_idle_session_expires(radiologist, department, waited_s, status):
    department.now += waited_s

    assert radiologist.get("/list").status_code == status


def test_list_that_updates_itself_does_not_keep_a_session_alive(radiologist, department):
    for _ in range(5):
        department.now += 60 * 60
        radiologist.get("/list/rows")

    assert radiologist.get("/list").status_code == 303


def test_disabled_account_is_out_at_once(radiologist, ledger):
    Users(ledger).disable("reader")

    assert radiologist.get("/list").status_code == 303


def test_cookie_is_hidden_from_scripts_and_other_sites(person, radiologist):
    response = person().sign_in("reader")

    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


class TestBehindTls:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(behind_tls_proxy=True, allowed_hosts=("triage.example",))

    def test_cookie_is_secure_and_the_browser_is_told_to_stay_with_https(self, app, ledger):
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "triage.example"}

        response = app.test_client().get("/sign-in", headers=headers)

        assert "Secure" in response.headers["Set-Cookie"]
        assert response.headers["Set-Cookie"].startswith("__Host-")
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"

    def test_health_check_on_this_machine_needs_no_name(self, app):
        assert app.test_client().get("/health", headers={"Host": "127.0.0.1:8080"}).status_code == 200

    def test_another_host_name_is_refused(self, app):
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}

        assert app.test_client().get("/sign-in", headers=headers).status_code == 400


def test_another_host_name_is_refused(app):
    assert app.test_client().get("/sign-in", headers={"Host": "evil.example"}).status_code == 400


def test_no_page_may_run_inline_code_or_be_framed(radiologist):
    policy = radiologist.get("/list").headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_pages_of_patients_stay_out_of_caches(radiologist):
    assert radiologist.get("/list").headers["Cache-Control"] == "no-store"


class TestLink:
    def test_link_opens_an_account_once(self, person, ledger, department):
        Users(ledger).add_link("token", role="administrator", now=department.now, expires_at=department.now + 60)
        form = {"username": "chief", "password": PASSWORD, "again": PASSWORD}

        first = person().post("/link/token", form)
        second = person().post("/link/token", form | {"username": "thief"})

        assert (first.status_code, second.status_code) == (303, 404)
        assert [user.username for user in Users(ledger).all()] == ["chief"]

    def test_expired_link_opens_nothing(self, person, ledger, department):
        Users(ledger).add_link("token", role="administrator", now=department.now, expires_at=department.now + 60)
        department.now += 61

        assert person().get("/link/token").status_code == 404

    @pytest.mark.parametrize(
        ("form", "says"),
        [
            ({"username": "chief", "password": "short", "again": "short"}, "choose at least 10"),
            ({"username": "chief", "password": PASSWORD, "again": "another"}, "The two passwords differ."),
            ({"username": "<b>", "password": PASSWORD, "again": PASSWORD}, "A name has small letters"),
            ({"username": "chief", "password": "aaaaaaaaaaaa", "again": "aaaaaaaaaaaa"}, "repeats too few"),
        ],
    )
    def test_bad_choice_is_explained_and_the_link_stays(self, person, ledger, department, form, says):
        Users(ledger).add_link("token", role="administrator", now=department.now, expires_at=department.now + 60)

        response = person().post("/link/token", form)

        assert response.status_code == 422
        assert says in response.get_data(as_text=True)
        assert Users(ledger).link("token", now=department.now) is not None

    def test_link_for_an_account_changes_its_password_and_ends_its_sessions(
        self, radiologist, person, ledger, department
    ):
        Users(ledger).add_link(
            "token", role="radiologist", username="reader", now=department.now, expires_at=department.now + 60
        )
        fresh = "another long password"

        person().post("/link/token", {"password": fresh, "again": fresh})

        assert radiologist.get("/list").status_code == 303
        assert person().sign_in("reader").status_code == 401
        assert person().sign_in("reader", fresh).status_code == 303
