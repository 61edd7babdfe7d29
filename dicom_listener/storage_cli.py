"""The commands storage verify and storage quarantine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from dicom_listener.inventory import fault_of, is_missing
from triage.errors import ConfigError, StoreError
from triage.ledger import Ledger
from triage.ledger.kept_files import KeptFile, QuarantinedObject, QuarantineList, kept_files
from triage.settings import Settings, load_settings

FAILED = 1
USAGE = 2
SHOWN = 100  # faults that are listed one by one

config_option = click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings, a TOML file.")


@click.group("storage")
def storage() -> None:
    """Check the images on disk, and look after what could not be taken."""


@storage.command("verify")
@click.option("--quick", is_flag=True, help="Only look whether each file is there; default: read it and compare.")
@config_option
def verify(quick: bool, config: Path | None) -> None:
    """Compare each image on disk with the ledger; exit code 1 if one is missing or damaged.

    What is missing or damaged is whole again once its study is sent again.

    Example: ich-triage storage verify --quick --config triage.toml
    """
    settings = _settings(config)
    folder = settings.storage.folder
    checked, faults = 0, []
    try:
        with Progress(TextColumn("{task.completed} files"), TimeElapsedColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("verify", total=None)
            for batch in kept_files(_ledger_path(settings)):
                for file in batch:
                    fault = _fault(folder, file, quick=quick)
                    faults += [(file, fault)] if fault else []
                    bar.advance(task)
                checked += len(batch)
    except StoreError as error:
        raise _failure(error) from error
    _show_faults(faults)
    how = "there" if quick else "there and whole"
    click.echo(f"{checked - len(faults)} of {checked} files are {how}.")
    if faults:
        raise SystemExit(FAILED)


@storage.command("quarantine")
@click.option("--remove", multiple=True, metavar="N", help="Delete number N of the list; may be given again; or: all.")
@config_option
def quarantine(remove: Sequence[str], config: Path | None) -> None:
    """List what could not be taken as an image, with the reason; the sender was told so and still has it.

    Example: ich-triage storage quarantine --remove all --config triage.toml
    """
    settings = _settings(config)
    try:
        _ledger_path(settings)
        kept = QuarantineList(Ledger(settings.storage.ledger_path))
        objects = kept.all()
        if remove:
            chosen = _chosen(objects, remove)
            for item in chosen:
                (settings.storage.folder / item.path).unlink(missing_ok=True)
            kept.forget([item.quarantine_id for item in chosen])
            click.echo(f"{len(chosen)} of {len(objects)} removed.")
            return
    except (StoreError, OSError) as error:
        raise _failure(error) from error
    _show_objects(objects, settings.storage.folder)


def _fault(folder: Path, file: KeptFile, *, quick: bool) -> str:
    if quick:
        return "missing" if is_missing(folder, file) else ""
    return fault_of(folder, file)


def _show_faults(faults: Sequence[tuple[KeptFile, str]]) -> None:
    if not faults:
        return
    table = Table("study", Column("file", overflow="fold"), "what")
    for file, fault in faults[:SHOWN]:
        table.add_row("-" if file.study_id is None else str(file.study_id), str(file.path), fault)
    Console().print(table)
    if len(faults) > SHOWN:
        click.echo(f"and {len(faults) - SHOWN} more.")
    studies = Counter(file.study_id for file, _ in faults)
    click.echo(f"{len(faults)} files of {len(studies)} studies: send these studies again, the files are then replaced.")


def _show_objects(objects: Sequence[QuarantinedObject], folder: Path) -> None:
    if objects:
        table = Table("N", "received", "from", "status", "bytes", Column("reason", overflow="fold"),
                      Column("file", overflow="fold"))  # fmt: skip
        for item in objects:
            at = datetime.fromtimestamp(item.received_at).astimezone()
            name = str(item.path) if (folder / item.path).exists() else "removed by hand"
            table.add_row(str(item.quarantine_id), f"{at:%Y-%m-%d %H:%M}", escape(item.calling_ae_title),
                          f"0x{item.status:04X}", str(item.size_bytes), escape(item.reason), name)  # fmt: skip
        Console().print(table)
    click.echo(f"{len(objects)} in quarantine, {sum(item.size_bytes for item in objects)} bytes.")


def _chosen(objects: Sequence[QuarantinedObject], remove: Sequence[str]) -> list[QuarantinedObject]:
    if "all" in remove:
        return list(objects)
    numbers = {int(each) for each in remove if re.fullmatch(r"[0-9]{1,18}", each)}
    known = {item.quarantine_id for item in objects}
    if len(numbers) < len(set(remove)) or numbers - known:
        raise click.UsageError("--remove takes numbers of the list, or: all. Without it the list is shown.")
    return [item for item in objects if item.quarantine_id in numbers]


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(USAGE) from error


def _ledger_path(settings: Settings) -> Path:
    """Give the ledger's file; a command that looks must not make one.

    Raises:
        StoreError: there is none.
    """
    path = settings.storage.ledger_path
    if not path.exists():
        raise StoreError(f"There is no ledger at {path}. Is storage.folder right?")
    return path


def _failure(error: Exception) -> SystemExit:
    click.echo(str(error), err=True)
    return SystemExit(FAILED)
