"""A department with a ledger, a worklist over it, and people who sign in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.worklist_ui.ledger_fill import Department
from triage.ledger import Ledger
from triage.ledger.users import Users
from triage.settings import ListenerSettings, Settings, StorageSettings, WorklistSettings
from worklist_ui.app import create_app
from worklist_ui.services import EXTENSION

PASSWORD = "correct horse battery"
# argon2 takes its time on purpose; with the smallest parameters the tests need not wait for it
QUICK_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
TOKEN = re.compile(r'name="csrf-token" content="([^"]+)"')
Make = Callable[..., "Person"]


@dataclass
class Person:
    """Somebody at a browser: Flask's client, with the CSRF token of the page they are on."""

    client: FlaskClient
    username: str = ""

    def get(self, path: str, **options: object) -> TestResponse:
        return self.client.get(path, **options)

    def post(self, path: str, fields: dict[str, object] | None = None, *, json: bool = False) -> TestResponse:
        """Send a form as the page would, or as its script would."""
        page = self.client.get("/list", follow_redirects=True).get_data(as_text=True)
        token = TOKEN.search(page)
        assert token is not None
        headers = {"X-CSRFToken": token.group(1)} | ({"Accept": "application/json"} if json else {})
        return self.client.post(path, data=fields or {}, headers=headers)

    def sign_in(self, username: str, password: str = PASSWORD) -> TestResponse:
        self.username = username
        return self.post("/sign-in", {"username": username, "password": password})


@pytest.fixture
def department(tmp_path: Path, ledger: Ledger) -> Department:
    return Department(tmp_path / "storage", ledger)


@pytest.fixture
def worklist_settings() -> WorklistSettings:
    return WorklistSettings()


@pytest.fixture
def app(department: Department, ledger: Ledger, worklist_settings: WorklistSettings) -> Iterator[Flask]:
    settings = Settings(
        storage=StorageSettings(folder=department.folder),
        listener=ListenerSettings(min_free_bytes=0),  # how full the disk of the tests is must not matter
        worklist=worklist_settings,
    )
    made = create_app(settings, ledger, secret_key=b"k" * 32, clock=lambda: department.now)
    yield made
    made.extensions[EXTENSION].live.close()


@pytest.fixture
def person(app: Flask, ledger: Ledger) -> Make:
    """Make somebody: signed in with a role, or a stranger without."""

    def make(username: str = "", role: str = "radiologist") -> Person:
        somebody = Person(app.test_client())
        if username:
            Users(ledger).add(username, role=role, password_hash=QUICK_HASH, now=0.0)
            assert somebody.sign_in(username).status_code == 303
        return somebody

    return make


@pytest.fixture
def radiologist(person: Make) -> Person:
    return person("reader")
