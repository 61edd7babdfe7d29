"""Tokens of programs: what they open, and what not."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.worklist_ui.programs import Program, program, token_for
from triage.ledger.tokens import Tokens
from triage.ledger.users import Users
from worklist_ui.bearer import new_secret
from worklist_ui.cli import users
from worklist_ui.roles import ROUTES, Permission
from worklist_ui.scopes import SCOPES, Scope

STUDIES = "/dicomweb/studies"


@pytest.fixture
def viewer(app, ledger) -> Program:
    return program(app, ledger, Scope.IMAGES_READ)


def test_token_opens_what_it_was_made_for(viewer, department):
    department.analyse(flagged=True)

    assert viewer.get(STUDIES).status_code == 200


def test_token_without_the_scope_is_refused_and_told_which(app, ledger):
    response = program(app, ledger, Scope.STUDIES_READ).get(STUDIES)

    assert response.status_code == 403
    assert response.content_type == "application/problem+json"
    assert response.json["detail"] == "This needs a token with the scope images:read."
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="images:read"'


def test_token_opens_no_page(viewer):
    assert viewer.get("/list").status_code == 403


def test_token_does_no_more_than_its_account(app, ledger):
    response = program(app, ledger, *Scope, username="curious", role="data_scientist").get(STUDIES)

    assert response.status_code == 403


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda ledger, department: setattr(department, "now", 4e9), "This token has expired."),
        (lambda ledger, department: Tokens(ledger).revoke(1, now=0.0), "This token has been revoked."),
        (lambda ledger, department: Users(ledger).disable("program"), "The account of this token is closed."),
    ],
)
def test_token_that_counts_no_more_is_answered_with_the_reason(viewer, ledger, department, spoil, says):
    spoil(ledger, department)

    response = viewer.get(STUDIES)

    assert (response.status_code, response.content_type) == (401, "application/problem+json")
    assert response.json["detail"] == says
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="ich-triage", error="invalid_token"'


@pytest.mark.parametrize("secret", ["", "x", "ich_" + "A" * 43])
def test_unknown_token_opens_nothing_not_even_with_a_session(radiologist, secret):
    response = radiologist.get(STUDIES, headers={"Authorization": f"Bearer {secret}"})

    assert response.status_code == 401
    assert response.json["detail"] == "This token is not known here."


def test_stranger_is_told_how_to_get_in(person):
    response = person().get(STUDIES)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="ich-triage"'


def test_secret_is_not_in_the_ledger(ledger):
    secret = token_for(ledger, Scope.IMAGES_READ)
    ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert secret.encode() not in ledger.path.read_bytes()


def test_last_use_is_noted_once_a_minute(viewer, ledger, department):
    viewer.get(STUDIES)
    first = department.now
    department.now += 30
    viewer.get(STUDIES)

    assert [token.used_at for token in Tokens(ledger).all()] == [first]


def test_every_scoped_route_is_a_route_that_asks_for_a_permission():
    assert [endpoint for endpoint in SCOPES if ROUTES.get(endpoint) in (None, Permission.ANYBODY)] == []


class TestCommands:
    @pytest.fixture
    def run(self, department, ledger, tmp_path):
        config = tmp_path / "triage.toml"
        config.write_text(f'[storage]\nfolder = "{department.folder}"\n')
        Users(ledger).add("ohif", role="service", password_hash="", now=0.0)
        return lambda *arguments: CliRunner().invoke(users, [*arguments, "--config", str(config)])

    def test_token_is_printed_once_and_works(self, run, app, department):
        department.analyse(flagged=True)
        made = run("token", "ohif", "--scope", "images:read", "--days", "400", "--label", "OHIF")
        assert made.exit_code == 2
        assert "at most 366" in made.output

        made = run("token", "ohif", "--scope", "images:read", "--days", "366", "--label", "OHIF")

        assert made.exit_code == 0
        assert Program(app.test_client(), made.output.strip()).get(STUDIES).status_code == 200

    def test_tokens_are_listed_without_their_secrets(self, run):
        secret = run("token", "ohif", "--scope", "images:read").output.strip()

        listed = run("tokens").output

        assert "images:read" in listed
        assert "valid" in listed
        assert secret not in listed

    def test_revoked_token_is_over(self, run, ledger):
        run("token", "ohif", "--scope", "images:read")

        assert run("revoke-token", "1").exit_code == 0
        assert run("revoke-token", "1").exit_code == 1
        assert Tokens(ledger).all()[0].revoked_at is not None

    def test_token_needs_an_open_account(self, run):
        assert run("token", "nobody", "--scope", "images:read").exit_code == 1

    def test_token_needs_a_known_scope(self, run):
        assert run("token", "ohif", "--scope", "everything").exit_code == 2


def test_new_secrets_differ():
    assert len({new_secret() for _ in range(100)}) == 100
