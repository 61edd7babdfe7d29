"""The commands of training: phantoms."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click


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
