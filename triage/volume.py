"""A CT volume in Hounsfield units, and the slabs on the model's grid that are cut from it.

Geometry is the client's part, intensity the model's: slabs carry HU as int16, windowing lies in the model's graph.
The worker and the trainer both cut their slabs here, so nothing is prepared in two ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

AIR_HU = -1000
HU_RANGE = (-1024, 3071)  # twelve bits, what a CT scanner stores (PS3.3 C.8.2.1)
TISSUE_HU = -300  # above air, fat and foam: what counts as head when it is centred
SLAB_RTOL = 0.35  # slices within 35 % of the slab thickness are used as they are, never mixed
HEAD_PERCENTILES = (1.0, 99.0)  # of tissue along an axis: a thin strap or cable moves the centre little


@dataclass(frozen=True)
class Volume:
    """An axial CT volume.

    Attributes:
        hu: (Z, Y, X) float32 HU; z grows to the head (S), y to the back (P), x to the patient's left (L).
        spacing_mm: (z, y, x), mm; z is the distance of slices along their normal.
        slice_uids: SOP Instance UID of each slice, in the order of `hu`; empty where there is none.
    """

    hu: npt.NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    slice_uids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The grid a model reads: rows x columns pixels, spacing (z, y, x) in mm."""

    rows: int = 192
    columns: int = 192
    spacing_mm: tuple[float, float, float] = (5.0, 1.25, 1.25)


@dataclass(frozen=True)
class Slabs:
    """Axial slabs on a model's grid.

    Attributes:
        hu: (Z, Y, X) int16 HU.
        spacing_mm: (z, y, x), mm; z is the true distance of these slabs, in-plane that of the grid.
        slice_range: (Z, 2) first and last slice index of the volume that each slab was made of.
    """

    hu: npt.NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    slice_range: npt.NDArray[np.int32]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, mL."""
        z, y, x = self.spacing_mm
        return z * y * x / 1000.0


def slabs_of(volume: Volume, grid: Grid) -> Slabs:
    """Cut a volume into slabs on the model's grid, the head in the middle.

    Slices already near the slab thickness are used as they are; thinner ones are averaged and thicker ones
    repeated by their overlap with each slab. In-plane, pixels are averaged down to the grid (antialiased triangle
    filter), never sub-sampled; outside of the image is air.
    """
    weights = slab_weights(len(volume.hu), volume.spacing_mm[0], grid.spacing_mm[0])
    centre = head_centre(volume)
    thick = volume.hu if weights is None else np.tensordot(weights, volume.hu, axes=1)
    planes = [_on_grid(plane, volume.spacing_mm[1:], centre, grid, AIR_HU) for plane in thick]
    hu = np.clip(np.rint(np.stack(planes)), *HU_RANGE).astype(np.int16)  # (Z, Y, X) HU
    return Slabs(hu, (_slab_spacing_mm(volume, weights, grid), *grid.spacing_mm[1:]), _slice_range(weights, len(hu)))


def mask_on_grid(mask: npt.NDArray[np.bool_], volume: Volume, grid: Grid) -> npt.NDArray[np.float32]:
    """Carry a mask of `volume` to the grid of `slabs_of(volume, grid)`: (Z, Y, X) share of each voxel, 0 to 1."""
    weights = slab_weights(len(volume.hu), volume.spacing_mm[0], grid.spacing_mm[0])
    centre = head_centre(volume)
    share = mask.astype(np.float32)
    thick = share if weights is None else np.tensordot(weights, share, axes=1)
    return np.stack([_on_grid(plane, volume.spacing_mm[1:], centre, grid, 0.0) for plane in thick])


def with_context(hu: npt.NDArray[np.int16], context: int) -> npt.NDArray[np.int16]:
    """Give each slab its neighbours as channels, the outermost repeated at the ends.

    Args:
        hu: (Z, Y, X) slabs.
        context: neighbours on each side.

    Returns:
        (Z, Y, X, 2 * context + 1), the slab itself in the middle channel.
    """
    last = len(hu) - 1
    at = np.arange(len(hu))
    slabs = np.empty((*hu.shape, 2 * context + 1), hu.dtype)
    for channel, step in enumerate(range(-context, context + 1)):
        slabs[..., channel] = hu[np.clip(at + step, 0, last)]
    return slabs


def slab_weights(slices: int, spacing_mm: float, slab_mm: float) -> npt.NDArray[np.float32] | None:
    """Give the share of each slice in each slab, (slabs, slices), rows summing to 1; None: slices are the slabs."""
    if abs(spacing_mm - slab_mm) <= SLAB_RTOL * slab_mm:
        return None
    extent_mm = slices * spacing_mm
    count = max(1, round(extent_mm / slab_mm))
    start_mm = (extent_mm - count * slab_mm) / 2
    slab_edges = start_mm + slab_mm * np.arange(count + 1)
    slice_edges = spacing_mm * np.arange(slices + 1)
    overlap_mm = np.minimum(slab_edges[1:, None], slice_edges[None, 1:]) - np.maximum(
        slab_edges[:-1, None], slice_edges[None, :-1]
    )
    weights = np.clip(overlap_mm, 0.0, None)  # (slabs, slices) mm
    shares: npt.NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def head_centre(volume: Volume) -> tuple[float, float]:
    """Find the middle of the head in-plane: (y, x) in pixels of the volume; the image centre where there is none."""
    box = head_box(volume)
    if box is None:
        return (volume.hu.shape[1] - 1) / 2, (volume.hu.shape[2] - 1) / 2
    (top, left), (bottom, right) = box
    return (top + bottom) / 2, (left + right) / 2


def head_extent_mm(volume: Volume) -> tuple[float, float]:
    """Measure what lies in the scanner: (back to front, left to right), mm; zero where there is only air."""
    box = head_box(volume)
    if box is None:
        return 0.0, 0.0
    (top, left), (bottom, right) = box
    return (bottom - top) * volume.spacing_mm[1], (right - left) * volume.spacing_mm[2]


def head_box(volume: Volume) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Find the largest connected tissue: ((top, left), (bottom, right)) in pixels, in-plane; None in air."""
    step = max(1, round(2.0 / volume.spacing_mm[1]))  # 2 mm is fine enough to find a head, and fast
    tissue = ndimage.binary_opening(volume.hu[:, ::step, ::step] > TISSUE_HU, iterations=1)
    labels, count = ndimage.label(tissue)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    _, ys, xs = np.nonzero(labels == sizes.argmax())
    top, bottom = np.percentile(ys, HEAD_PERCENTILES) * step
    left, right = np.percentile(xs, HEAD_PERCENTILES) * step
    return (float(top), float(left)), (float(bottom), float(right))


def _slab_spacing_mm(volume: Volume, weights: npt.NDArray[np.float32] | None, grid: Grid) -> float:
    return volume.spacing_mm[0] if weights is None else grid.spacing_mm[0]


def _slice_range(weights: npt.NDArray[np.float32] | None, slabs: int) -> npt.NDArray[np.int32]:
    if weights is None:
        return np.repeat(np.arange(slabs, dtype=np.int32)[:, None], 2, axis=1)
    ends = [np.flatnonzero(row > 0)[[0, -1]] for row in weights]
    return np.array(ends, dtype=np.int32)


def _on_grid(
    plane: npt.NDArray[np.float32],
    spacing_mm: tuple[float, ...],
    centre: tuple[float, float],
    grid: Grid,
    outside: float,
) -> npt.NDArray[np.float32]:
    """Resample one plane to the grid around `centre`; (Y, X) float32."""
    height = grid.rows * grid.spacing_mm[1] / spacing_mm[0]  # of the grid, in pixels of the plane
    width = grid.columns * grid.spacing_mm[2] / spacing_mm[1]
    top = centre[0] + 0.5 - height / 2  # pixel edges, not centres: what Pillow's box means
    left = centre[1] + 0.5 - width / 2
    margin = [
        max(0, int(np.ceil(-top))),
        max(0, int(np.ceil(top + height - plane.shape[0]))),
        max(0, int(np.ceil(-left))),
        max(0, int(np.ceil(left + width - plane.shape[1]))),
    ]
    padded = np.pad(plane, (margin[:2], margin[2:]), constant_values=outside)
    top, left = top + margin[0], left + margin[2]
    box = (left, top, left + width, top + height)
    image = Image.fromarray(np.ascontiguousarray(padded, np.float32))
    size = (grid.columns, grid.rows)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box), np.float32)
