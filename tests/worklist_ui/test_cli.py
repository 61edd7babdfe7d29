"""The commands `ich-triage users` and `ich-triage worklist`, run as a person runs them."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from ich_triage import main
from triage.ledger import Ledger
from triage.ledger.users import Users

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "triage.toml"
    path.write_text(f'[storage]\nfolder = "{tmp_path / "storage"}"\n[worklist]\nport = 0\nopen_lists = 5\n')
    return path


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ich_triage(capsys, monkeypatch):
    """Run a command in this process."""

    def run(*arguments, given=""):
        monkeypatch.setattr(sys, "stdin", StringIO(given))
        code = main(list(arguments))
        return Done(code, *capsys.readouterr())

    return run


def users(tmp_path):
    ledger = Ledger(tmp_path / "storage" / "ledger.sqlite")
    found = Users(ledger).all()
    ledger.close()
    return found


def test_account_is_opened_with_a_password_from_stdin(ich_triage, config, tmp_path):
    done = ich_triage(
        "users", "add", "Reader", "--role", "radiologist", "--password-stdin", "--config", str(config),
        given="a long password\n",
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "Account reader is open.\n")
    assert [(user.username, user.role) for user in users(tmp_path)] == [("reader", "radiologist")]


@pytest.mark.parametrize(
    ("name", "password", "says"),
    [("reader", "short", "choose at least 10"), ("<b>", "a long password", "A name has small letters")],
)
def test_bad_account_is_refused_as_wrong_usage(ich_triage, config, tmp_path, name, password, says):
    done = ich_triage(
        "users", "add", name, "--role", "radiologist", "--password-stdin", "--config", str(config), given=password
    )

    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "storage" / "ledger.sqlite").exists() or users(tmp_path) == []


def test_password_is_made_where_none_is_given(ich_triage, config):
    done = ich_triage("users", "add", "reader", "--role", "radiologist", "--config", str(config))

    assert re.fullmatch(r"[\w-]{16}\n", done.stdout)


def test_same_name_twice_fails(ich_triage, config):
    ich_triage("users", "add", "reader", "--role", "radiologist", "--config", str(config))

    again = ich_triage("users", "add", "reader", "--role", "radiologist", "--config", str(config))

    assert again.returncode == 1
    assert "choose another name" in again.stderr


def test_accounts_are_listed_and_closed(ich_triage, config, tmp_path):
    ich_triage("users", "add", "reader", "--role", "radiologist", "--config", str(config))

    closed = ich_triage("users", "disable", "reader", "--config", str(config))
    listed = ich_triage("users", "list", "--config", str(config))

    assert closed.returncode == 0
    assert re.search(r"reader\W+radiologist\W+disabled", listed.stdout)
    assert ich_triage("users", "disable", "nobody", "--config", str(config)).returncode == 1


def test_first_start_prints_a_link_that_opens_the_first_account(config, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "ich_triage", "worklist", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        port = json.loads(process.stdout.readline())["worklist_port"]
        link = next(line for line in process.stderr if "Open this link once" in line).split()[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as health:
            assert json.load(health) == {"status": "ok"}
        with urllib.request.urlopen(link, timeout=30) as page:
            assert "Choose a password" in page.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(link + "x", timeout=30)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "Traceback" not in errors
    assert stat.S_IMODE((tmp_path / "storage" / "worklist.key").stat().st_mode) == 0o600


def test_wrong_setting_is_wrong_usage(ich_triage, tmp_path):
    (tmp_path / "bad.toml").write_text("[worklist]\nprot = 1\n")

    done = ich_triage("worklist", "--config", str(tmp_path / "bad.toml"))

    assert done.returncode == 2
    assert "worklist.prot is no setting" in done.stderr
