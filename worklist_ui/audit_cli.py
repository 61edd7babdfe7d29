"""The command `audit`: checks the audit trail and gives it to other systems."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from triage.ledger.audit import AuditTrail, Deed
from worklist_ui.command_line import config_option, ledger_of, settings_of
from worklist_ui.fhir import audit_event


@click.group("audit")
def audit() -> None:
    """Check and export the audit trail of the worklist."""


@audit.command("verify")
@click.option("--seal", default="", help="A last seal that was noted earlier: it must still be in the trail.")
@config_option
def verify(seal: str, config: Path | None) -> None:
    """Check that no row was changed, taken out or put in; exit code 1 names the first that does not fit.

    Example: ich-triage audit verify --config triage.toml
    """
    trail = AuditTrail(ledger_of(settings_of(config)))
    verdict = trail.verify()
    if verdict.broken_at is not None:
        raise click.ClickException(f"Row {verdict.broken_at} is broken: {verdict.broken_because}.")
    if seal and not trail.has_seal(seal):
        raise click.ClickException("The seal that was noted is not in the trail: rows were cut off at the end.")
    click.echo(f"{verdict.rows} rows, all whole. Last seal, to be kept elsewhere: {verdict.last_seal}")


@audit.command("export")
@click.option("--format", "form", type=click.Choice(["fhir", "csv"]), default="fhir", show_default=True, help="Form.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="From this day on, UTC; default: all.")
@config_option
def export(form: str, since: datetime | None, config: Path | None) -> None:
    """Write the trail to stdout: FHIR R4 AuditEvent, one a line, or CSV.

    Example: ich-triage audit export --since 2026-01-01 > audit.ndjson
    """
    trail = AuditTrail(ledger_of(settings_of(config)))
    records = trail.records(since=since.replace(tzinfo=UTC).timestamp() if since else 0.0)
    if form == "fhir":
        for record in records:
            click.echo(json.dumps(audit_event(record)))
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(["audit_id", "at", *Deed.__dataclass_fields__, "seal"])
    for record in records:
        writer.writerow([record.audit_id, record.at, *map(_cell, asdict(record.deed).values()), record.seal])


def _cell(value: object) -> object:
    """Keep a spreadsheet from running a value as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
