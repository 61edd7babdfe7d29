"""Pictures of single slices: a window of HU, the pixels made square, and a warning that cannot be taken off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from worklist_ui.volumes import PreviewSlice

WARNING = "NOT FOR DIAGNOSIS"
RESEARCH_WARNING = "RESEARCH ONLY, NOT FOR DIAGNOSIS"
MAP_COLOUR = (255, 96, 64)
MAP_OPACITY = 0.6  # of a probability of 1; the tissue below stays to be seen
JPEG_QUALITY = 88  # compressed on purpose: a preview, never a diagnostic image
LONGEST_SIDE = 768  # pixels
SHORTEST_SIDE = 384  # small test images are enlarged so that the warning can be read


@dataclass(frozen=True)
class Window:
    """A window in HU (PS3.3 C.11.2.1.2)."""

    name: str
    width: float
    level: float


PRESETS = (
    Window("Brain", 80, 40),
    Window("Subdural", 200, 80),
    Window("Stroke", 40, 40),
    Window("Bone", 2800, 600),
)


def slice_jpeg(drawn: PreviewSlice, window: Window, probability: npt.NDArray[np.uint8] | None = None) -> bytes:
    """Draw one slice as a JPEG with the warning burned in.

    Args:
        drawn: the slice.
        window: HU that become black to white.
        probability: (Y, X), 0 to 255, laid over it in colour: for research.
    """
    grey = windowed(drawn.hu, window)
    plain = Image.fromarray(grey if probability is None else coloured(grey, probability))
    image = square_pixels(plain, drawn.spacing_mm)
    burn_in(image, WARNING if probability is None else RESEARCH_WARNING)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def windowed(hu: npt.NDArray[np.int16], window: Window) -> npt.NDArray[np.uint8]:
    """Map HU to grey, 0 to 255, linear within the window (PS3.3 C.11.2.1.2.1)."""
    lowest = window.level - window.width / 2
    scaled = (hu.astype(np.float32) - lowest) * (255.0 / window.width)
    grey: npt.NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return grey


def coloured(grey: npt.NDArray[np.uint8], probability: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay a probability map over a grey picture: (Y, X, 3), the more opaque the more probable."""
    share = (probability.astype(np.float32) / 255.0 * MAP_OPACITY)[..., None]
    mixed = grey[..., None] * (1.0 - share) + np.array(MAP_COLOUR, np.float32) * share
    rounded: npt.NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return rounded


def slice_of_slab(slab: int, slab_count: int, slices: int) -> int:
    """Give the slice in the middle of one of the model's slabs, which lie evenly over the volume's slices.

    The model's slabs are centred on the volume; where they do not fill it to the millimetre, the slice given lies
    less than half a slab beside the middle.
    """
    return min(max(int((slab + 0.5) * slices / max(1, slab_count)), 0), slices - 1)


def square_pixels(image: Image.Image, spacing_mm: tuple[float, ...]) -> Image.Image:
    """Scale an image so that its pixels are square and its size is good to look at; `spacing_mm` is (row, column)."""
    row_mm, column_mm = spacing_mm
    width_mm, height_mm = image.width * column_mm, image.height * row_mm
    finest_mm = min(row_mm, column_mm)
    longest = max(width_mm, height_mm) / finest_mm
    scale = min(max(longest, SHORTEST_SIDE), LONGEST_SIDE) / longest
    size = (round(width_mm / finest_mm * scale), round(height_mm / finest_mm * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def burn_in(image: Image.Image, warning: str = WARNING) -> None:
    """Write a warning into the pixels, light on a dark bar, at top and bottom: cropping one leaves the other."""
    draw = ImageDraw.Draw(image)
    light, dark = ((235, 235, 235), (0, 0, 0)) if image.mode == "RGB" else (235, 0)
    font = _font(max(7, min(max(13, image.width // 30), image.width // 10)))
    left, top, right, bottom = draw.textbbox((0, 0), warning, font=font)
    width, height = right - left, bottom - top
    for y in (6, image.height - height - 12):
        x = (image.width - width) // 2
        draw.rectangle((x - 8, y - 4, x + width + 8, y + height + 6), fill=dark)
        draw.text((x - left, y - top), warning, fill=light, font=font)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
