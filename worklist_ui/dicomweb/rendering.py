"""Pictures of instances (PS3.18 8.3.5): windowed, in a viewport, with the warning burned in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydicom.dataset import FileDataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.pixels.utils import pixel_array
from werkzeug.datastructures import MultiDict

from triage.errors import UnreadableInstance
from triage.header_values import numbers, text
from worklist_ui.dicomweb.stored import lenient
from worklist_ui.previews import burn_in, square_pixels

JPEG, PNG = "image/jpeg", "image/png"
FUNCTIONS = ("linear", "linear-exact", "sigmoid")
LARGEST_SIDE = 4096  # pixels of a viewport
THUMBNAIL_SIDE = 128
Grey = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """Which values become black to white (PS3.3 C.11.2.1)."""

    center: float
    width: float
    function: str = "linear"


@dataclass(frozen=True)
class Rendering:
    """How a picture is wanted."""

    media_type: str = JPEG
    window: Window | None = None  # None: the header's own, else the full range
    viewport: tuple[int, int] | None = None  # width and height in pixels that it must fit into
    quality: int = 88


def rendering_from(args: MultiDict[str, str], media_type: str) -> Rendering:
    """Read the parameters of PS3.18 8.3.5.1; others are ignored, as it says.

    Raises:
        ValueError: a parameter that cannot be understood; the message names it.
    """
    return Rendering(media_type, _window(args.get("window")), _viewport(args.get("viewport")), _quality(args))


def picture(ds: FileDataset, frame_number: int, wanted: Rendering) -> bytes:
    """Draw one frame.

    Raises:
        UnreadableInstance: it has no pixels that can be decoded.
    """
    try:
        with lenient():
            image = _drawn(ds, frame_number, wanted.window)
    except Exception as error:  # decoders raise what they like; each means that there is no picture
        raise UnreadableInstance(f"There is no picture: {type(error).__name__}.") from error
    spacing = numbers(ds, "PixelSpacing", 2) or (1.0, 1.0)
    image = square_pixels(image, spacing if min(spacing) > 0 else (1.0, 1.0))
    if wanted.viewport is not None:
        image = ImageOps.contain(image, wanted.viewport, Image.Resampling.BILINEAR)
    burn_in(image)
    buffer = BytesIO()
    if wanted.media_type == PNG:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=wanted.quality)
    return buffer.getvalue()


def windowed(values: Grey, window: Window) -> npt.NDArray[np.uint8]:
    """Map values to grey, 0 to 255 (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
    center, width = window.center, window.width
    if window.function == "sigmoid":
        scaled = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -80, 80)))
    elif window.function == "linear-exact":
        scaled = (values - center) / width + 0.5
    else:  # the width counts the values in it, so the slope is over width - 1
        scaled = (values - (center - 0.5)) / max(width - 1.0, 1e-6) + 0.5
    grey: npt.NDArray[np.uint8] = (np.clip(scaled, 0.0, 1.0) * 255).round().astype(np.uint8)
    return grey


def _drawn(ds: FileDataset, frame_number: int, window: Window | None) -> Image.Image:
    stored = pixel_array(ds, index=frame_number - 1, raw=True)
    photometric = text(ds, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)
        stored = (stored >> 8 if stored.dtype.itemsize == 2 else stored).astype(np.uint8)
        return Image.fromarray(stored, "RGB")
    if stored.ndim == 3:
        if photometric.startswith("YBR_FULL"):
            stored = convert_color_space(stored, "YBR_FULL", "RGB")
        return Image.fromarray(stored.astype(np.uint8), "RGB")
    grey = _grey(ds, stored, window)
    return Image.fromarray(255 - grey if photometric == "MONOCHROME1" else grey)


def _grey(ds: FileDataset, stored: npt.NDArray[np.generic], window: Window | None) -> npt.NDArray[np.uint8]:
    values = apply_modality_lut(stored, ds).astype(np.float32)
    if window is None and "VOILUTSequence" in ds:
        values = apply_voi_lut(apply_modality_lut(stored, ds), ds, prefer_lut=True).astype(np.float32)
    else:
        window = window or _own_window(ds)
    return windowed(values, window or _full_range(values))


def _own_window(ds: FileDataset) -> Window | None:
    """Give the header's first window."""
    try:
        center, width = (float(text(ds, name).split("\\")[0]) for name in ("WindowCenter", "WindowWidth"))
    except ValueError:
        return None
    if not (math.isfinite(center) and math.isfinite(width) and width >= 1):
        return None
    function = text(ds, "VOILUTFunction").lower().replace("_", "-")
    return Window(center, width, function if function in FUNCTIONS else "linear")


def _full_range(values: Grey) -> Window:
    lowest, highest = float(values.min()), float(values.max())
    return Window((lowest + highest) / 2, max(highest - lowest, 1.0), "linear-exact")


def _window(value: str | None) -> Window | None:
    if value is None:
        return None
    parts = value.split(",")
    try:
        center, width = float(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        center = width = math.nan
    function = parts[2].lower().replace("_", "-") if len(parts) == 3 else "linear"
    if len(parts) > 3 or not (math.isfinite(center) and 1 <= width < 1e9) or function not in FUNCTIONS:
        raise ValueError(f"window takes center,width,function with a function of {', '.join(FUNCTIONS)}.")
    return Window(center, width, function)


def _viewport(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.split(",")[:2]  # a part of the image cannot be asked for: the warning would be cut off
    if len(parts) < 2 or not all(part.isdecimal() and 0 < int(part[:6]) <= LARGEST_SIDE for part in parts):
        raise ValueError(f"viewport takes width,height from 1 to {LARGEST_SIDE} pixels.")
    return int(parts[0]), int(parts[1])


def _quality(args: MultiDict[str, str]) -> int:
    value = args.get("quality", "88")
    if not value.isdecimal() or not 1 <= int(value[:4]) <= 100:
        raise ValueError("quality takes a whole number from 1 to 100.")
    return int(value)
