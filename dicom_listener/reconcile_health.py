"""Whether comparisons with the PACS are being made: the health check of that container.

`python -m dicom_listener.reconcile_health --config triage.toml` exits 0 if they are, else 1 with the reason.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from triage.errors import TriageError
from triage.ledger import Ledger
from triage.ledger.reconciliation import Reconciliations
from triage.settings import load_settings

SECONDS_A_MINUTE = 60.0
LATE_FACTOR = 2.0  # a comparison that fetches may take as long as the time between two


@click.command(epilog="Example: python -m dicom_listener.reconcile_health --config triage.toml")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file that the process has.")
def reconcile_health(config: Path | None) -> None:
    """Exit 0 if the last comparison ended within twice `reconcile.every_minutes`, else 1.

    A PACS that does not answer is not this process's illness: the comparison then says so, and metrics tell.
    """
    try:
        settings = load_settings(config)
        if not settings.storage.ledger_path.is_file():
            raise click.ClickException("There is no ledger yet.")
        ledger = Ledger(settings.storage.ledger_path)
        latest = Reconciliations(ledger).latest()
        ledger.close()
    except TriageError as error:
        raise click.ClickException(str(error)) from error
    if latest is None:
        raise click.ClickException("No comparison has been made.")
    age_minutes = (time.time() - latest.ended_at) / SECONDS_A_MINUTE
    limit_minutes = LATE_FACTOR * settings.reconcile.every_minutes
    if age_minutes > limit_minutes:
        raise click.ClickException(
            f"The last comparison ended {age_minutes:.0f} minutes ago; expected at most {limit_minutes:g}."
        )
    click.echo(f"The last comparison ended {age_minutes:.0f} minutes ago.")


if __name__ == "__main__":
    sys.exit(reconcile_health())
