"""Small pictures of slices in the brain window, with the mask's outline in red."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from training.head_spaces import BoolField
from training.labelled_scan import LabelledScan

BRAIN_HU = (-10.0, 90.0)
OUTLINE = (255, 60, 60)

Picture = npt.NDArray[np.uint8]  # (rows, columns, 3)


def slice_picture(hu: npt.NDArray[np.float32], mask: BoolField, side: int) -> Picture:
    """Draw one slice with the outline of its mask: (side, side, 3)."""
    low, high = BRAIN_HU
    grey = np.clip((np.nan_to_num(hu, nan=low) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    outline = ndimage.binary_dilation(mask) & ~mask if mask.any() else np.zeros(hu.shape, np.bool_)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[outline] = OUTLINE
    image = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


def telling_slice(scan: LabelledScan) -> int:
    """Choose the slice that says most of a scan: the one with most blood, else with most tissue below the vertex."""
    drawn = scan.mask.sum(axis=(1, 2))
    if drawn.any():
        return int(drawn.argmax())
    labelled = np.flatnonzero(scan.slice_labels.any(axis=1))
    return int(labelled[len(labelled) // 2]) if len(labelled) else len(scan.volume.hu) * 3 // 5


def thumbnail(scan: LabelledScan, side: int = 128) -> Picture:
    """Draw the telling slice of a scan."""
    at = telling_slice(scan)
    return slice_picture(scan.volume.hu[at], scan.mask[at], side)


def data_url(picture: Picture) -> str:
    """Give a picture as it stands in a page that needs no other file."""
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
