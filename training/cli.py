"""The commands of training: phantoms, train and evaluate."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.library_switches import BACKENDS, choose_backend
from triage.errors import ConfigError

if TYPE_CHECKING:
    from training.evaluation_report import SourceReport
    from training.run_record import RunRecord
    from training.trainer import Trainer

PUBLISH_HELP = "Then calibrate, score and export as the next version in this folder, e.g. models/ich_unet."

BACKEND_HELP = "What Keras computes with; jax and torch use one device, their runs are published with TensorFlow."


@click.command(
    epilog="Example: ich-triage phantoms /tmp/phantoms --count 6 --bleeds 2 --seed 1",
    context_settings={"show_default": True},
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1, 9999), default=6, help="Studies to write.")
@click.option("--bleeds", type=click.IntRange(0), default=2, help="How many of them bleed.")
@click.option("--seed", type=int, default=1, help="Of anatomy and bleeds; identifiers are new every time.")
@click.option("--slices", type=click.IntRange(2, 512), default=32, help="Slices a study.")
@click.option("--slice-mm", type=click.FloatRange(0.3, 10.0), default=5.0, help="Slice thickness and distance, mm.")
@click.option("--size", type=click.IntRange(64, 1024), default=512, help="Rows and columns.")
@click.option("--smallest-ml", type=click.FloatRange(0.1, 60.0), default=5.0, help="Smallest bleed, mL.")
@click.option("--largest-ml", type=click.FloatRange(0.1, 150.0), default=60.0, help="Largest bleed, mL.")
def phantoms(
    folder: Path,
    count: int,
    bleeds: int,
    seed: int,
    slices: int,
    slice_mm: float,
    size: int,
    smallest_ml: float,
    largest_ml: float,
) -> None:
    """Write synthetic head CTs as DICOM series into FOLDER, one folder a study, and what is in them as truth.json."""
    from training.phantom_dicom import StudyTruth, write_phantoms

    if bleeds > count:
        raise click.BadParameter(f"{bleeds} bleeds in {count} studies; at most one study in one can bleed.")
    if smallest_ml > largest_ml:
        raise click.BadParameter(f"The smallest bleed ({smallest_ml} mL) exceeds the largest ({largest_ml} mL).")

    def say(truth: StudyTruth) -> None:
        content = f"{', '.join(truth.kinds)} {truth.volume_ml:.1f} mL" if truth.bleed else "no bleed"
        click.echo(f"{truth.folder}  {content}")

    write_phantoms(
        folder,
        count=count,
        bleeds=bleeds,
        seed=seed,
        acquired_at=datetime.now(UTC),
        slices=slices,
        slice_mm=slice_mm,
        size=size,
        bleed_ml=(smallest_ml, largest_ml),
        written=say,
    )


class DefaultGroup(click.Group):
    """A group whose first argument may also be that of its command `run`: `train CONFIG` is `train run CONFIG`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before arguments that name no command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultGroup, epilog="Example: ich-triage train run.toml --publish models/ich_unet")
def train() -> None:
    """Train the U-Net as a TOML file says: `train CONFIG`, or one of these commands."""


@train.command("run", epilog="Example: ich-triage train run.toml --publish models/ich_unet")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run's folder.")
@click.option("--publish", "repository", type=click.Path(file_okay=False, path_type=Path), help=PUBLISH_HELP)
@click.option("--backend", type=click.Choice(BACKENDS), default="tensorflow", show_default=True, help=BACKEND_HELP)
@click.option("--debugger", is_flag=True, help="Dump every tensor's health for TensorBoard's debugger; slow.")
def run_training(config: Path, resume: bool, repository: Path | None, backend: str, debugger: bool) -> None:
    """Convert the sources that CONFIG names, train on them, and validate."""
    if backend != "tensorflow" and (repository or debugger):
        raise click.BadParameter(f"{backend} neither publishes nor debugs; `train publish` does, from its checkpoint.")
    try:
        choose_backend(backend)
        from training.loop import Stopped
        from training.run import train_network
        from training.settings import read_settings
        from training.trainer import Trainer

        try:
            trainer = train_network(read_settings(config), resume=resume, say=_say, debugger=debugger)
        except Stopped as stopped:
            raise click.ClickException(str(stopped)) from stopped
        if repository is not None and isinstance(trainer, Trainer):
            _publish(trainer, repository)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


@train.command("publish", epilog="Example: ich-triage train publish run.toml models/ich_unet")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("repository", type=click.Path(file_okay=False, path_type=Path))
def publish_run(config: Path, repository: Path) -> None:
    """Calibrate, score and export the newest checkpoint of CONFIG's run as the next version in REPOSITORY."""
    from training.run import trainer_of
    from training.settings import read_settings

    try:
        _publish(trainer_of(read_settings(config), say=_say), repository)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


@train.command("board", epilog="Example: ich-triage train board runs")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=6006, show_default=True, help="Port to listen on; 0 takes a free one.")
def board(folder: Path, host: str, port: int) -> None:
    """Open TensorBoard on the runs below FOLDER, until Ctrl-C."""
    from tensorboard import default, program  # type: ignore[import-untyped]

    server = program.TensorBoard(default.get_plugins())
    server.configure(argv=[None, "--logdir", str(folder), "--host", host, "--port", str(port)])
    click.echo(f"TensorBoard: {server.launch()}")
    threading.Event().wait()


@train.command("compare", epilog="Example: ich-triage train compare runs/first runs/ich_unet --out runs/compared.html")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--tracking", metavar="URI", help="Where tracked runs are looked up; default: runs/mlflow.db.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Page with the curves.")
def compare(runs: tuple[str, ...], tracking: str | None, out: Path | None) -> None:
    """Compare RUNs with the first of them: scores, settings, and paired differences by patient with 95 % intervals.

    A RUN is a run's folder, or the name or ID of a tracked run.
    """
    from training.comparison import changed_settings, comparison_page, differences, summary_of

    try:
        records = [_record_of(run, tracking) for run in runs]
        found = differences(records)
        if out is not None:
            out.write_text(comparison_page(records))
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    for summary in map(summary_of, records):
        scores = ", ".join(f"{name} {value:.3f}" for name, value in summary.scores.items())
        click.echo(f"{summary.name}: {summary.steps} steps in {summary.hours:.2f} h; {scores or 'not validated'}")
    for key, values in changed_settings(records).items():
        click.echo(f"{key}: {' | '.join(values)}")
    for row in found:
        verdict = "noise" if row.is_noise else "differs"
        click.echo(f"{row.second} minus {row.first}, {row.source}, {row.figure}: {row.estimate}, {verdict}")


def _record_of(run: str, tracking: str | None) -> RunRecord:
    from training.run_record import read_run
    from training.tracking import embedded_uri, read_tracked_run

    if Path(run).is_dir():
        return read_run(Path(run))
    return read_tracked_run(tracking or embedded_uri(Path("runs")), run)


@train.command("search", epilog="Example: ich-triage train search search.toml")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
def search(config: Path) -> None:
    """Search the settings that CONFIG lets vary: each trial is a run. The same command goes on with a broken search."""
    from training.loop import Stopped
    from training.search import search_settings
    from training.search_settings import read_search

    try:
        reports = search_settings(read_search(config), _say)
    except (ConfigError, Stopped) as error:
        raise click.ClickException(str(error)) from error
    for report in reports:
        score = "" if report.score is None else f" {report.score:.4f}"
        values = ", ".join(f"{key} = {value}" for key, value in report.values.items())
        click.echo(f"trial {report.number} {report.outcome}{score}: {values} ({report.folder})")


@click.command(epilog="Example: ich-triage evaluate training/ich_unet.toml models/ich_unet/4 --out runs/evaluation")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the JSON and HTML reports.")
def evaluate(config: Path, model: Path, out: Path | None) -> None:
    """Score MODEL, one version's folder, on the scans that CONFIG lists under `test`, by patient and with intervals."""
    from training.evaluation_run import evaluate_model
    from training.settings import read_settings

    try:
        reports = evaluate_model(read_settings(config), model, out=out, say=_say)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    _show(reports)


def _show(reports: Sequence[SourceReport]) -> None:
    from rich.console import Console
    from rich.table import Table

    from training.evaluation_report import rows_of

    for report in reports:
        table = Table("score", "value (95 % interval)", title=report.name)
        for name, value in rows_of(report):
            table.add_row(name, value)
        Console(width=None if sys.stdout.isatty() else 120).print(table)


def _publish(trainer: Trainer, repository: Path) -> None:
    from training.publication import publish

    published = publish(trainer, repository, command=shlex.join(["ich-triage", *sys.argv[1:]]), say=_say)
    click.echo(f"version {published.folder.name} written")
    for scores in published.scores:
        click.echo(f"{scores.source}: study AUC {scores.study_auc}")
        click.echo(f"  sensitivity {scores.sensitivity}, specificity {scores.specificity}, Dice {scores.slice_dice}")


def _say(line: str) -> None:
    click.echo(line, err=True)
