"""A radiologist's browser without a screen: signs in to a local worklist and follows its live list."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from local_stack import HOST, LocalStack
from triage.errors import TriageError

CSRF = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


class SignInRefused(TriageError):
    """The worklist did not let this reader in."""


def add_reader(stack: LocalStack, username: str, password: str) -> None:
    """Make a radiologist who may sign in.

    Raises:
        SignInRefused: as `add_account`.
    """
    add_account(stack, username, password, role="radiologist")


def add_account(stack: LocalStack, username: str, password: str, *, role: str) -> None:
    """Open an account, by the command that an administrator uses.

    Raises:
        SignInRefused: the command failed; its message is in the error.
    """
    command = [sys.executable, "-m", "ich_triage", "users", "add", username, "--role", role]
    done = subprocess.run(
        [*command, "--password-stdin", "--config", str(stack.config)],
        input=password,
        text=True,
        capture_output=True,
        cwd=Path(__file__).resolve().parent,
        check=False,
    )
    if done.returncode:
        raise SignInRefused(f"`ich-triage users add` failed: {done.stderr.strip()}")


class SignedInReader:
    """One reader's session with a worklist on loopback.

    Args:
        port: of the worklist.
        username: of the reader.
        password: of the reader.

    Raises:
        SignInRefused: wrong name or password.
    """

    def __init__(self, port: int, username: str, password: str) -> None:
        self._address = f"http://{HOST}:{port}"
        self._browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        form = CSRF.search(self.get("/sign-in"))
        fields = {"csrf_token": form[1] if form else "", "username": username, "password": password}
        try:
            self._browser.open(f"{self._address}/sign-in", urllib.parse.urlencode(fields).encode(), timeout=30).close()
        except urllib.error.HTTPError as error:
            raise SignInRefused(f"The worklist answered {error.code} to the sign-in.") from error

    @classmethod
    def of(cls, stack: LocalStack, username: str = "reader") -> SignedInReader:
        """Make a reader with a password of the moment, and sign in."""
        password = secrets.token_urlsafe(16)
        add_reader(stack, username, password)
        return cls(stack.wait_ready("worklist")["worklist_port"], username, password)

    def get(self, path: str) -> str:
        """Give a page."""
        with self._browser.open(f"{self._address}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def updates(self, timeout_s: float = 60.0) -> Iterator[dict[str, Any]]:
        """Follow the list: an update for each change, the first with all rows."""
        with self._browser.open(f"{self._address}/list/stream", timeout=timeout_s) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
