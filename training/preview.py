"""Pictures of what augmentation shows the network: a row a change, each alone, and one of all together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image, ImageDraw

from training.augmentation import augmented
from training.labelled_scan import LabelledSlabs
from training.settings import AugmentationSettings, RunSettings
from training.sources import read_source
from training.thumbnails import Picture, slice_picture
from triage.errors import ConfigError
from triage.volume import with_context

COLUMNS = 6  # the slab as it is, and five times changed
SIDE = 176  # pixels of a picture
CAPTION = 18  # pixels of a row's name
SCANS_TRIED = 40  # until one shows blood
OFF = AugmentationSettings.model_validate(
    {name: False if name == "flip" else 0.0 for name in AugmentationSettings.model_fields}
)


def preview(settings: RunSettings, path: Path) -> list[str]:
    """Write a contact sheet of the augmentation of a run.

    Args:
        settings: of the run; its first source with a bleeding scan is shown.
        path: of the PNG.

    Returns:
        The names of the rows.

    Raises:
        ConfigError: no augmentation is switched on, or no scan is found.
    """
    chosen = switched_on(settings.augmentation)
    if not chosen:
        raise ConfigError("No augmentation is switched on in [augmentation].")
    hu, blood = _telling_slab(_first_bleeding(settings), settings.network.context)
    rows = {name: _row(hu, blood, settings, alone) for name, alone in chosen.items()}
    _save(_sheet(rows), path)
    return list(rows)


def switched_on(settings: AugmentationSettings) -> dict[str, AugmentationSettings]:
    """Give each change that is switched on, alone, and then all together."""
    names = [name for name in AugmentationSettings.model_fields if getattr(settings, name)]
    alone = {name: OFF.model_copy(update={name: getattr(settings, name)}) for name in names}
    return {**alone, "all together": settings} if names else {}


def _first_bleeding(settings: RunSettings) -> LabelledSlabs:
    scans: Iterator[LabelledSlabs] = (
        scan for source in settings.source for scan in islice(read_source(source, settings.grid.grid), SCANS_TRIED)
    )
    first = None
    for scan in scans:
        if scan.blood.any():
            return scan
        first = first or scan
    if first is None:
        raise ConfigError("No source gave a scan; check their folders and folds.")
    return first


def _telling_slab(scan: LabelledSlabs, context: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Give the slab with most blood, once: (1, Y, X, C) HU and (1, Y, X) blood."""
    drawn = scan.blood.sum(axis=(1, 2), dtype=np.int64)
    at = int(drawn.argmax()) if drawn.any() else len(scan.hu) * 3 // 5
    hu = with_context(scan.hu, context)[at : at + 1].astype(np.float32)
    return tf.constant(hu), tf.constant(scan.blood[at : at + 1].astype(np.float32) / 255.0)


def _row(hu: tf.Tensor, blood: tf.Tensor, settings: RunSettings, changes: AugmentationSettings) -> list[Picture]:
    pictures = []
    for column in range(COLUMNS):
        used = changes if column else OFF
        seed = tf.constant([settings.seed, column], tf.int32)
        shown, drawn = augmented(hu, blood, used, settings.optimiser.crop, settings.grid.spacing_mm[2], seed)
        middle: npt.NDArray[np.float32] = shown.numpy()[0, ..., shown.shape[-1] // 2]
        pictures.append(slice_picture(middle, drawn.numpy()[0] > 0.5, SIDE))
    return pictures


def _sheet(rows: dict[str, list[Picture]]) -> Image.Image:
    sheet = Image.new("RGB", (COLUMNS * SIDE, len(rows) * (SIDE + CAPTION)), (24, 28, 34))
    draw = ImageDraw.Draw(sheet)
    for number, (name, pictures) in enumerate(rows.items()):
        top = number * (SIDE + CAPTION)
        draw.text((4, top + 3), f"{name}   (left: unchanged)", fill=(230, 235, 242))
        _paste(sheet, pictures, top + CAPTION)
    return sheet


def _paste(sheet: Image.Image, pictures: Iterable[Picture], top: int) -> None:
    for column, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (column * SIDE, top))


def _save(sheet: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    sheet.save(beside, format="PNG")
    beside.rename(path)
