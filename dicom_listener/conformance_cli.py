"""The command conformance."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_listener.conformance import statement
from triage.errors import ConfigError
from triage.settings import load_settings

USAGE = 2


@click.command("conformance")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings, a TOML file.")
def conformance(config: Path | None) -> None:
    """Print the DICOM conformance statement of the listener as it is configured, in Markdown.

    Example: ich-triage conformance --config triage.toml > CONFORMANCE.md
    """
    try:
        settings = load_settings(config)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(USAGE) from error
    click.echo(statement(settings.listener, settings.reconcile), nl=False)
