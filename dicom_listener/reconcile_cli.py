"""The command that compares the ledger with the PACS."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from dicom_listener.pacs_comparison import Period, default_period
from dicom_listener.reconcile import Reconciler
from triage import logs
from triage.errors import ConfigError, StoreError
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage
from triage.settings import Settings, load_settings
from triage.stop_signal import StopSignal

FAILED = 1
USAGE = 2
SECONDS_A_MINUTE = 60.0


@click.command("reconcile")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings, a TOML file.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="First study date. Default: today.")
@click.option("--days", type=click.IntRange(1, 366), help="So many days up to today. Default: reconcile.days.")
@click.option("--once", is_flag=True, help="Compare once; exit code 1 if an image is missing.")
@click.option("--every", "every_minutes", type=click.FloatRange(min=0, min_open=True),
              help="Minutes from one comparison to the next. Default: reconcile.every_minutes.")  # fmt: skip
def reconcile(
    config: Path | None, since: datetime | None, days: int | None, once: bool, every_minutes: float | None
) -> None:
    """Compare the head CTs that the PACS has with those that were received, and fetch what is missing.

    With --once exit code 1 says that images are missing or that the PACS could not be asked; without it comparisons are
    made until SIGTERM or Ctrl-C.

    Example: ich-triage reconcile --config triage.toml --once
    """
    try:
        settings = _settings(config, days, every_minutes)
        logs.configure(settings.log, process="reconcile")
        ledger = Ledger(settings.storage.ledger_path)
        whole = _repeat(Reconciler(settings, ledger), settings, since, once=once)
        ledger.close()
    except ConfigError as error:
        raise _failure(error, USAGE) from error
    except StoreError as error:
        raise _failure(error, FAILED) from error
    if once and not whole:
        raise SystemExit(FAILED)


def _settings(config: Path | None, days: int | None, every_minutes: float | None) -> Settings:
    settings = load_settings(config)
    given = {"days": days, "every_minutes": every_minutes}
    chosen = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"reconcile": settings.reconcile.model_copy(update=chosen)})


def _repeat(reconciler: Reconciler, settings: Settings, since: datetime | None, *, once: bool) -> bool:
    """Compare once or until told to end; give whether the last one found everything."""
    stopping = StopSignal() if once else StopSignal.on_termination()
    while True:
        coverage = reconciler.run(_period(reconciler, settings, since, once=once))
        show(coverage)
        if once or stopping.wait(settings.reconcile.every_minutes * SECONDS_A_MINUTE):
            return coverage.whole


def _period(reconciler: Reconciler, settings: Settings, since: datetime | None, *, once: bool) -> Period:
    now = datetime.now().astimezone()
    if since is not None:
        return Period(min(since.date(), now.date()), now.date())
    return default_period(settings.reconcile, now, None if once else reconciler.latest())


def show(coverage: Coverage, console: Console | None = None) -> None:
    """Print a comparison: how much of what the PACS has is here, and each study that is incomplete."""
    console = console or Console()
    console.print(headline(coverage), highlight=False, soft_wrap=True)
    if coverage.error:
        console.print(f"Not finished: {coverage.error}", highlight=False, soft_wrap=True, markup=False)
    if not coverage.gaps:
        return
    table = Table("study date", Column("study", overflow="fold"), "images here", "images in PACS", "state",
                  Column("why", overflow="fold"))  # fmt: skip
    for gap in coverage.gaps:
        table.add_row(gap.study_date, gap.study_instance_uid, str(gap.present), str(gap.expected),
                      gap.state.value, escape(gap.detail))  # fmt: skip
    console.print(table)


def headline(coverage: Coverage) -> str:
    """Say it in one line: "312 of 312 images, 9 of 9 head CTs, today"."""
    today = datetime.fromtimestamp(coverage.started_at).astimezone().date().isoformat()
    if coverage.first_day == coverage.last_day == today:
        when = "today"
    elif coverage.first_day == coverage.last_day:
        when = f"on {coverage.first_day}"
    else:
        when = f"from {coverage.first_day} to {coverage.last_day}"
    fetched = f"; {coverage.instances_fetched} fetched now" if coverage.instances_fetched else ""
    return (
        f"{coverage.instances_present} of {coverage.instances_expected} images, "
        f"{coverage.studies_complete} of {coverage.studies_expected} head CTs {when}{fetched}"
    )


def _failure(error: Exception, exit_code: int) -> SystemExit:
    """Say what is wrong and what to do, on stderr."""
    click.echo(str(error), err=True)
    return SystemExit(exit_code)
