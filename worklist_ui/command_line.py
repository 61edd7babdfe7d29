"""What every command of the worklist begins with: its settings, the ledger, and how an error is told."""

from __future__ import annotations

from pathlib import Path

import click

from triage.errors import ConfigError, StoreError, TriageError
from triage.ledger import Ledger
from triage.settings import Settings, load_settings

config_option = click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings, a TOML file.")


def settings_of(config: Path | None) -> Settings:
    """Read the settings, or end the command with what is wrong in them."""
    try:
        return load_settings(config)
    except ConfigError as error:
        raise failure(error) from error


def ledger_of(settings: Settings) -> Ledger:
    """Open the ledger, or end the command with the reason."""
    try:
        return Ledger(settings.storage.ledger_path)
    except StoreError as error:
        raise failure(error) from error


def failure(error: TriageError) -> click.ClickException:
    """Give the way a command ends: 2 for what the caller gave, 1 for everything else."""
    return click.UsageError(str(error)) if isinstance(error, ConfigError) else click.ClickException(str(error))
