"""Whether a worker of this host lives: the health check of its container.

`python -m inference.worker_health --config triage.toml` exits 0 if one does, else 1 with the reason.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from triage.errors import TriageError
from triage.ledger import Ledger
from triage.ledger.studies import Studies, WorkerReport
from triage.settings import load_settings


def youngest_report_s(reports: Sequence[WorkerReport], *, host: str, now: float) -> float | None:
    """Give how long ago a worker of `host` last reported, in seconds; None if none has."""
    ages = [now - report.seen_at for report in reports if report.owner.partition(":")[0] == host]
    return min(ages, default=None)


@click.command(epilog="Example: python -m inference.worker_health --config triage.toml")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file that the worker has.")
def worker_health(config: Path | None) -> None:
    """Exit 0 if a worker of this host reported within its lease (`worker.lease_s`), else 1.

    A worker reports between studies. One that is silent for longer than its lease has lost its study to the queue.
    A model that is away does not make a worker unhealthy: its studies wait.
    """
    try:
        settings = load_settings(config)
        if not settings.storage.ledger_path.is_file():
            raise click.ClickException("There is no ledger yet: the worker has not started.")
        ledger = Ledger(settings.storage.ledger_path)
        reports = Studies(ledger).workers()
        ledger.close()
    except TriageError as error:
        raise click.ClickException(str(error)) from error
    age_s = youngest_report_s(reports, host=socket.gethostname(), now=time.time())
    if age_s is None:
        raise click.ClickException("No worker of this host has reported.")
    if age_s > settings.worker.lease_s:
        raise click.ClickException(
            f"The last report is {age_s:.0f} s old; expected at most {settings.worker.lease_s} s."
        )
    click.echo(f"A worker reported {age_s:.0f} s ago.")


if __name__ == "__main__":
    sys.exit(worker_health())
