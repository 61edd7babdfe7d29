"""The commands of the worklist: `worklist` serves it, `users` manages who may sign in."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from triage.errors import StoreError, TriageError
from triage.ledger.users import Users
from triage.settings import Settings
from worklist_ui import passwords, secret_key, token_cli
from worklist_ui.command_line import config_option, failure, ledger_of, settings_of
from worklist_ui.names import USERNAME, USERNAME_RULE
from worklist_ui.roles import Role


@click.command("worklist")
@config_option
def worklist(config: Path | None) -> None:
    """Show the reading list in the browser until SIGTERM or Ctrl-C.

    One line on stdout says that it answers: {"worklist_port": 8080}. The first start without any account prints a
    one-time link on stderr; the person who opens it chooses name and password.

    Example: ich-triage worklist --config triage.toml
    """
    from worklist_ui import oidc  # neither Authlib nor gunicorn is needed to manage users
    from worklist_ui.server import serve

    settings = settings_of(config)
    ledger = ledger_of(settings)  # opened once before serving: a ledger that cannot be read is said here
    nobody = Users(ledger).count() == 0
    ledger.close()  # no connection crosses gunicorn's fork
    try:
        oidc.check(settings.worklist)
        key = secret_key.read_or_make(settings.storage.folder)
    except TriageError as error:
        raise failure(error) from error

    def say_ready(port: int) -> None:
        if nobody:
            _offer_first_account(settings, port)
        click.echo(json.dumps({"worklist_port": port}))

    serve(settings, key, when_ready=say_ready)


@click.group("users")
def users() -> None:
    """Manage who may sign in to the worklist."""


@users.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What they may do.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, one line.")
@click.option("--link", is_flag=True, help="Print a one-time link instead of a password.")
@config_option
def add(name: str, role: str, password_stdin: bool, link: bool, config: Path | None) -> None:
    """Open an account. Without an option a password is made and printed once.

    Example: ich-triage users add a.reader --role radiologist
    """
    name = name.strip().lower()
    if not USERNAME.fullmatch(name):
        raise click.UsageError(USERNAME_RULE)
    settings = settings_of(config)
    accounts = Users(ledger_of(settings))
    if link:
        click.echo(_make_link(accounts, settings, role, name))
        return
    password = _given_password() if password_stdin else passwords.generate()
    try:
        accounts.add(name, role=role, password_hash=passwords.hash_password(password), now=time.time())
    except StoreError as error:
        raise failure(error) from error
    click.echo(f"Account {name} is open." if password_stdin else password)


@users.command("list")
@config_option
def list_users(config: Path | None) -> None:
    """List the accounts.

    Example: ich-triage users list
    """
    table = Table("name", "role", "state")
    for user in Users(ledger_of(settings_of(config))).all():
        locked = user.locked_until is not None and user.locked_until > time.time()
        table.add_row(user.username, user.role, "disabled" if user.disabled else "locked" if locked else "open")
    Console().print(table)


@users.command("disable")
@click.argument("name")
@config_option
def disable(name: str, config: Path | None) -> None:
    """Close an account and end its sessions.

    Example: ich-triage users disable a.reader
    """
    _found(Users(ledger_of(settings_of(config))).disable(name.lower()), name)
    click.echo(f"Account {name} is closed.")


@users.command("enable")
@click.argument("name")
@config_option
def enable(name: str, config: Path | None) -> None:
    """Open a closed or locked account again.

    Example: ich-triage users enable a.reader
    """
    _found(Users(ledger_of(settings_of(config))).enable(name.lower()), name)
    click.echo(f"Account {name} is open.")


@users.command("reset")
@click.argument("name")
@config_option
def reset(name: str, config: Path | None) -> None:
    """Print a one-time link by which a person chooses a new password.

    Example: ich-triage users reset a.reader
    """
    settings = settings_of(config)
    accounts = Users(ledger_of(settings))
    user = accounts.by_name(name.lower())
    _found(user is not None, name)
    if user is not None:
        click.echo(_make_link(accounts, settings, user.role, user.username))


def _offer_first_account(settings: Settings, port: int) -> None:
    """Print a one-time link where nobody could sign in; there is no default password."""
    ledger = ledger_of(settings)
    link = _make_link(Users(ledger), settings, Role.ADMINISTRATOR.value, "", port=port)
    ledger.close()
    click.echo(f"No account yet. Open this link once, within {settings.worklist.link_hours:g} h: {link}", err=True)


def _make_link(accounts: Users, settings: Settings, role: str, username: str, *, port: int | None = None) -> str:
    token, now = secrets.token_urlsafe(24), time.time()
    expires_at = now + settings.worklist.link_hours * 3600
    accounts.add_link(token, role=role, username=username, now=now, expires_at=expires_at)
    return f"{_base_url(settings, port or settings.worklist.port)}/link/{token}"


def _base_url(settings: Settings, port: int) -> str:
    """Give the address that a browser on this host reaches the worklist by."""
    worklist_settings = settings.worklist
    if worklist_settings.allowed_hosts and worklist_settings.behind_tls_proxy:
        return f"https://{worklist_settings.allowed_hosts[0]}"
    scheme = "https" if worklist_settings.certificate else "http"
    anywhere = worklist_settings.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    host = "127.0.0.1" if anywhere else worklist_settings.host
    return f"{scheme}://{host}:{port}"


def _given_password() -> str:
    password = sys.stdin.readline().rstrip("\r\n")
    if complaint := passwords.complaint(password):
        raise click.UsageError(complaint)
    return password


def _found(found: bool, name: str) -> None:
    if not found:
        raise click.ClickException(f"There is no account {name}; `ich-triage users list` names them.")


for command in (token_cli.make, token_cli.list_tokens, token_cli.revoke):
    users.add_command(command)
