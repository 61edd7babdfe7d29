"""The command `data`: check sources, convert them cleansed, and look at what augmentation shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.errors import ConfigError

if TYPE_CHECKING:
    from training.data_check import ScanCheck, SplitSource
    from training.data_report import Album


@click.group(epilog="Example: ich-triage data check ct-ich:shared/ct-ich")
def data() -> None:
    """Check, convert and preview the sources that training reads."""


@data.command("check", epilog="Example: ich-triage data check training/ich_unet.toml --page check.html")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write the report with pictures here.")
def check_data(sources: tuple[str, ...], page: Path | None) -> None:
    """Report what is wrong in each SOURCE; fails where a patient stands in two splits.

    A SOURCE is KIND:FOLDER, such as ct-ich, ct-ich-nifti, rsna, cq500, instance, bhsd, dicom-seg or opinions, or a
    run's TOML file, whose sources are held against its validation and test.
    """
    from training.data_check import ScanCheck, find_leaks
    from training.data_report import Album

    try:
        chosen = _chosen(sources)
        leaking = find_leaks(chosen)
        check, album = ScanCheck(), Album()
        for each in chosen:
            for checked in check.walk(each):
                album.add(f"{each.split}/{each.source.kind}", checked)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    _report(check, album, [*([leaking] if leaking else []), *check.leaking], page)


@data.command("convert", epilog="Example: ich-triage data convert training/ich_unet.toml --page check.html")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write the report with pictures here.")
def convert_data(config: Path, page: Path | None) -> None:
    """Convert the sources that CONFIG names; faulty scans are repaired or left out, each with its reason.

    `ich-triage train CONFIG` then uses what was converted. What is converted already stays as it is.
    """
    from training.data_check import CheckedScan, ScanCheck, clean_reader, refuse_shared_patients, split_sources
    from training.data_report import Album
    from training.settings import read_settings
    from training.shards import convert

    try:
        settings = read_settings(config)
        chosen = split_sources(settings)
        refuse_shared_patients(chosen)
        check, album = ScanCheck(), Album()
        for each in chosen:

            def seen(checked: CheckedScan, name: str = f"{each.split}/{each.source.kind}") -> None:
                album.add(name, checked)

            read = clean_reader(check, each.split, seen)
            folder = convert(each.source, settings.grid, settings.shards_folder, read=read)
            click.echo(f"{each.split} {each.source.kind}: {folder}", err=True)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    _report(check, album, check.leaking, page)


@data.command("preview", epilog="Example: ich-triage data preview training/ich_unet.toml augmentation.png")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def preview_data(config: Path, picture: Path) -> None:
    """Draw what each augmentation that CONFIG switches on does to a slab and its mask, into PICTURE (PNG)."""
    from training.preview import preview
    from training.settings import read_settings

    try:
        rows = preview(read_settings(config), picture)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{picture}: {', '.join(rows)}")


def _chosen(sources: Sequence[str]) -> list[SplitSource]:
    from training.data_check import SplitSource, split_sources
    from training.settings import read_settings, source_at

    chosen: list[SplitSource] = []
    for text in sources:
        kind, separator, folder = text.partition(":")
        if text.endswith(".toml"):
            chosen.extend(split_sources(read_settings(Path(text))))
        elif separator:
            chosen.append(SplitSource("source", source_at(kind, Path(folder))))
        else:
            raise ConfigError(f"{text} names no source; expected KIND:FOLDER or a run's TOML file.")
    return chosen


def _report(check: ScanCheck, album: Album, leaking: Sequence[str], page: Path | None) -> None:
    """Print the table, write the page, and fail where a patient or an image leaks."""
    from rich.console import Console

    from training.data_report import table_of, write_page

    Console().print(table_of(check.tallies))
    if page is not None:
        write_page(page, check.tallies, album, leaking)
        click.echo(f"report: {page}", err=True)
    if leaking:
        raise click.ClickException(" ".join(leaking))
