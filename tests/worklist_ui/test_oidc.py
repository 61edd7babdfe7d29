"""Signing in by an identity provider, one that the tests start and that can be made to lie."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from structlog.testing import capture_logs

from tests.worklist_ui.conftest import QUICK_HASH
from tests.worklist_ui.identity_provider import CLIENT_ID, CLIENT_SECRET, FOREIGN_KEY, running_provider
from triage.errors import ConfigError
from triage.ledger.audit import AuditTrail
from triage.ledger.users import Users
from triage.settings import WorklistSettings
from worklist_ui.oidc import check, role_of
from worklist_ui.roles import Role

ROLES = {"Radiology-Chiefs": "supervisor", "Radiology": "radiologist"}


@pytest.fixture
def provider():
    with running_provider() as found:
        found.claims = {"sub": "4711", "preferred_username": "Jane.Roe", "groups": ["Staff", "Radiology"]}
        yield found


@pytest.fixture
def worklist_settings(provider):
    return WorklistSettings(
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_roles=ROLES,
    )


@pytest.fixture
def browser(app):
    return app.test_client()


def come_back(browser, address="/oidc/sign-in"):
    """Go to the provider as a browser would, and give the address that it sends the browser back to."""
    sent = browser.get(address)
    assert sent.status_code == 302
    back = urlsplit(requests.get(sent.location, allow_redirects=False, timeout=5).headers["Location"])
    assert (back.netloc, back.path) == ("localhost", "/oidc/callback")
    return f"{back.path}?{back.query}"


def sign_in(browser, address="/oidc/sign-in"):
    return browser.get(come_back(browser, address))


def test_person_with_a_role_is_signed_in(browser, ledger):
    response = sign_in(browser)

    assert (response.status_code, response.location) == (303, "/")
    assert browser.get("/list").status_code == 200
    assert Users(ledger).by_name("jane.roe").role == "radiologist"


def test_person_goes_on_to_the_page_that_was_asked_for(browser):
    assert sign_in(browser, "/oidc/sign-in?after=/list?q%3Ddoe").location == "/list?q=doe"


@pytest.mark.parametrize("after", ["//evil.example", "https://evil.example/"])
def test_person_is_never_sent_to_another_site(browser, after):
    assert sign_in(browser, f"/oidc/sign-in?after={after}").location == "/"


def test_provider_is_asked_with_state_nonce_and_code_challenge(browser, provider):
    asked = parse_qs(urlsplit(browser.get("/oidc/sign-in").location).query)

    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == ["http://localhost/oidc/callback"]
    assert all(len(asked[name][0]) >= 20 for name in ("state", "nonce", "code_challenge"))
    assert "openid" in asked["scope"][0].split()


def test_page_offers_the_provider(browser):
    assert "/oidc/sign-in" in browser.get("/sign-in").get_data(as_text=True)


def test_role_follows_the_provider_at_each_sign_in(browser, provider, ledger):
    sign_in(browser)
    provider.claims["groups"] = ["Radiology", "Radiology-Chiefs"]
    sign_in(browser)

    assert Users(ledger).by_name("jane.roe").role == "supervisor"


def test_person_keeps_the_account_under_a_new_name(browser, provider, ledger):
    sign_in(browser)
    provider.claims["preferred_username"] = "jane.miller"
    sign_in(browser)

    assert [user.username for user in Users(ledger).all()] == ["jane.roe"]


@pytest.mark.parametrize("groups", [[], ["Staff"], "Staff", None, 7, [["Radiology"]]])
def test_person_without_a_role_is_refused_with_a_clear_page(browser, provider, ledger, groups):
    provider.claims["groups"] = groups

    response = sign_in(browser)

    assert response.status_code == 403
    assert "have no role on this worklist" in response.get_data(as_text=True)
    assert browser.get("/list").status_code == 303
    assert Users(ledger).all() == []


def test_name_of_a_local_account_is_never_taken_over(browser, ledger):
    Users(ledger).add("jane.roe", role="administrator", password_hash=QUICK_HASH, now=0.0)

    response = sign_in(browser)

    assert response.status_code == 403
    assert "another account of this name" in response.get_data(as_text=True)
    assert browser.get("/list").status_code == 303
    assert Users(ledger).by_name("jane.roe").role == "administrator"


def test_another_person_with_the_same_name_is_refused(browser, provider):
    sign_in(browser)
    provider.claims["sub"] = "4712"

    assert sign_in(browser).status_code == 403


def test_closed_account_stays_closed(browser, ledger):
    sign_in(browser)
    Users(ledger).disable("jane.roe")

    assert sign_in(browser).status_code == 403
    assert browser.get("/list").status_code == 303


@pytest.mark.parametrize("name", ["", "<b>jane</b>", "a" * 65, None])
def test_name_that_no_account_can_have_is_refused(browser, provider, name):
    provider.claims["preferred_username"] = name

    assert sign_in(browser).status_code == 403


def test_account_has_no_password(browser, person):
    sign_in(browser)

    assert person().sign_in("jane.roe", "").status_code == 401


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://evil.example"},
        {"aud": "another-client"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
    ],
)
def test_token_that_does_not_hold_signs_nobody_in(browser, provider, ledger, lies):
    provider.lies = lies

    response = sign_in(browser)

    assert response.status_code == 400
    assert "Begin again" in response.get_data(as_text=True)
    assert browser.get("/list").status_code == 303
    assert Users(ledger).all() == []


def test_token_signed_by_somebody_else_signs_nobody_in(browser, provider, ledger):
    provider.key = FOREIGN_KEY

    assert sign_in(browser).status_code == 400
    assert Users(ledger).all() == []


def test_answer_to_another_browser_s_question_is_refused(app, browser, ledger):
    """An attacker's own answer, slipped to another browser, would sign that one in as the attacker."""
    address = come_back(app.test_client())

    assert browser.get(address).status_code == 400
    assert Users(ledger).all() == []


def test_answer_counts_once(browser):
    address = come_back(browser)

    assert [browser.get(address).status_code for _ in range(2)] == [303, 400]


@pytest.mark.parametrize("query", ["", "?code=x", "?state=x", "?code=x&state=y", "?error=access_denied&state=x"])
def test_callback_without_a_question_is_refused(browser, query):
    assert browser.get(f"/oidc/callback{query}").status_code == 400


def test_claims_may_come_from_userinfo(browser, provider, ledger):
    provider.only_userinfo = frozenset({"groups", "preferred_username"})

    assert sign_in(browser).status_code == 303
    assert Users(ledger).by_name("jane.roe").role == "radiologist"


def test_userinfo_of_another_person_is_refused(browser, provider):
    provider.only_userinfo, provider.userinfo_subject = frozenset({"groups"}), "666"

    assert sign_in(browser).status_code == 400


def test_sign_in_stands_in_the_audit_trail_and_refusals_in_the_log(browser, provider, ledger):
    sign_in(browser)
    provider.claims["groups"] = []
    with capture_logs() as lines:
        sign_in(browser)

    deeds = [(record.deed.actor, record.deed.action, record.deed.outcome) for record in AuditTrail(ledger).records()]
    assert ("jane.roe", "sign_in", 303) in deeds
    assert ("sign_in_refused", "oidc_no_role") in [(line["event"], line.get("reason")) for line in lines]


class TestAway:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(oidc_issuer="http://127.0.0.1:1", oidc_client_id="x", oidc_roles=ROLES)

    def test_provider_that_does_not_answer_is_said(self, browser):
        response = browser.get("/oidc/sign-in")

        assert response.status_code == 502
        assert "sign in by name and password" in response.get_data(as_text=True)


class TestNone:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings()

    def test_without_a_provider_there_is_no_such_sign_in(self, browser):
        assert browser.get("/oidc/sign-in").status_code == 404
        assert browser.get("/oidc/callback").status_code == 404
        assert "/oidc/sign-in" not in browser.get("/sign-in").get_data(as_text=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"oidc_issuer": "http://idp.example"}, "must be an https address"),
        ({"oidc_client_id": ""}, "oidc_client_id is empty"),
        ({"oidc_roles": {}}, "it is empty"),
        ({"oidc_roles": {"x": "emperor"}}, "there is no role emperor"),
    ],
)
def test_settings_that_would_refuse_everybody_are_refused_at_the_start(changes, says):
    values = {"oidc_issuer": "https://idp.example", "oidc_client_id": "x", "oidc_roles": ROLES}

    with pytest.raises(ConfigError, match=says):
        check(WorklistSettings(**values | changes))


def test_first_role_of_the_settings_counts():
    settings = WorklistSettings(oidc_roles=ROLES)

    assert role_of({"groups": ["Radiology", "Radiology-Chiefs"]}, settings) is Role.SUPERVISOR
    assert role_of({"groups": "Radiology"}, settings) is Role.RADIOLOGIST
    assert role_of({}, settings) is None


def test_client_secret_is_never_shown():
    assert "hush" not in repr(WorklistSettings(oidc_client_secret="hush"))
