"""The commands for tokens, below `users`: make one, list them, revoke one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from triage.errors import StoreError
from triage.ledger.tokens import Token, Tokens
from worklist_ui.bearer import new_secret
from worklist_ui.command_line import config_option, failure, ledger_of, settings_of
from worklist_ui.scopes import Scope

DAY_S = 86_400.0


@click.command("token")
@click.argument("name")
@click.option(
    "--scope", "scopes", type=click.Choice([scope.value for scope in Scope]), multiple=True, required=True,
    help="What it may be used for; may be given more than once.",
)  # fmt: skip
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), default=90.0, show_default=True, help="How long it counts."
)
@click.option("--label", default="", help="What it is for, e.g. the name of the program.")
@config_option
def make(name: str, scopes: tuple[str, ...], days: float, label: str, config: Path | None) -> None:
    """Make a token for a program, printed once. It does what the account NAME may do, within its scopes.

    Example: ich-triage users token ohif --scope images:read --days 365
    """
    settings = settings_of(config)
    if days > settings.worklist.token_days_at_most:
        raise click.UsageError(f"{days:g} days; at most {settings.worklist.token_days_at_most:g} are allowed.")
    secret, now = new_secret(), time.time()
    tokens = Tokens(ledger_of(settings))
    try:
        tokens.add(secret, name.lower(), scopes=set(scopes), label=label[:64], expires_at=now + days * DAY_S, now=now)
    except StoreError as error:
        raise failure(error) from error
    click.echo(secret)


@click.command("tokens")
@config_option
def list_tokens(config: Path | None) -> None:
    """List the tokens, never their secrets.

    Example: ich-triage users tokens
    """
    table = Table("id", "account", "label", "scopes", "state", "until", "last used")
    now = time.time()
    for token in Tokens(ledger_of(settings_of(config))).all():
        table.add_row(
            str(token.token_id), token.username, token.label, " ".join(sorted(token.scopes)), _state(token, now),
            _day(token.expires_at), _day(token.used_at),
        )  # fmt: skip
    Console().print(table)


@click.command("revoke-token")
@click.argument("token_id", type=int)
@config_option
def revoke(token_id: int, config: Path | None) -> None:
    """End a token at once.

    Example: ich-triage users revoke-token 3
    """
    if not Tokens(ledger_of(settings_of(config))).revoke(token_id, now=time.time()):
        raise click.ClickException(f"There is no token {token_id} that still counts; `ich-triage users tokens`.")
    click.echo(f"Token {token_id} opens nothing any more.")


def _state(token: Token, now: float) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "valid" if token.is_valid(now) else "expired"


def _day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
