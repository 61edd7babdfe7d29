"""Draw a head in Hounsfield units from one that never lived: anatomy as fields in head coordinates, mm.

x grows to the patient's left, y to the back, z to the vertex; the origin lies in the middle of the skull, about 4 cm
above the line from eye to ear. Sizes follow adult means (inner skull about 136 x 170 mm); every head differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.head_spaces import BoolField, FloatField, HeadSpaces
from training.smooth_noise import smooth_noise

AIR, FAT, MUSCLE, SKIN = -1000.0, -85.0, 52.0, 20.0  # HU
WHITE, GREY, CSF, DURA, SINUS = 28.0, 37.0, 8.0, 47.0, 50.0
DIPLOE, TABLE = 650.0, 1350.0


@dataclass(frozen=True)
class HeadShape:
    """What differs from head to head; lengths in mm, angles in radians."""

    half_mm: tuple[float, float, float]  # inner skull, (x, y, z)
    skull_mm: float
    scalp_mm: float
    gap_mm: float  # fluid between brain and skull: grows with age
    sulci: float  # 0 none to 1 wide
    ventricles: float  # size, 1 is usual
    yaw: float
    pitch: float
    roll: float
    offset_mm: tuple[float, float, float]


def random_shape(rng: np.random.Generator) -> HeadShape:
    """Give an adult head; age decides together over gap, sulci and ventricles."""
    size = rng.normal(1.0, 0.035)
    age = rng.random()
    half = (68.0 * rng.normal(1, 0.03), 85.0 * rng.normal(1, 0.03), 80.0 * rng.normal(1, 0.03))
    return HeadShape(
        half_mm=(half[0] * size, half[1] * size, half[2] * size),
        skull_mm=float(rng.uniform(4.5, 8.5)),
        scalp_mm=float(rng.uniform(3.5, 9.0)),
        gap_mm=float(0.5 + 3.0 * age * rng.uniform(0.5, 1.2)),
        sulci=float(np.clip(0.1 + 0.8 * age + rng.normal(0, 0.1), 0, 1)),
        ventricles=float(np.clip(0.65 + 0.7 * age + rng.normal(0, 0.15), 0.5, 1.7)),
        yaw=float(rng.normal(0, 0.12)),
        pitch=float(rng.normal(0, 0.09)),
        roll=float(rng.normal(0, 0.05)),
        offset_mm=(float(rng.normal(0, 6)), float(rng.normal(0, 6)), float(rng.normal(0, 5))),
    )


def draw_head(
    shape: HeadShape, z_mm: FloatField, pixel_mm: float, size: int, rng: np.random.Generator
) -> tuple[FloatField, HeadSpaces]:
    """Draw the head at heights `z_mm` on `size` x `size` pixels.

    Returns:
        HU (Z, Y, X) float32 without noise, and the spaces that blood can fill.
    """
    x, y, z = head_coordinates(shape, z_mm, pixel_mm, size)
    depth = inner_depth_mm(shape, x, y, z, rng)
    floor = z - skull_floor_mm(x, y)  # height above the skull base
    inside = (depth > 0) & (floor > 0)
    hu = _draw_outside(shape, depth, floor, x, y, z, rng)
    ventricles = inside & _ventricles(shape, x, y, z)
    csf = inside & ~ventricles & _subarachnoid_space(shape, depth, x, y, z, rng)
    brain = inside & ~ventricles & ~csf
    _draw_inside(hu, inside, brain, ventricles | csf, depth, x, y, z, rng)
    _draw_dense_traps(hu, inside, depth, x, y, z, rng)
    spacing = (float(abs(z_mm[1] - z_mm[0])), pixel_mm, pixel_mm)
    return hu, HeadSpaces(x, y, z, np.minimum(depth, floor), inside, brain, ventricles, csf, spacing)


def head_coordinates(
    shape: HeadShape, z_mm: FloatField, pixel_mm: float, size: int
) -> tuple[FloatField, FloatField, FloatField]:
    """Give x, y, z of each voxel in head coordinates: shifted, then rolled, pitched and yawed."""
    at = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(pixel_mm)
    world = (
        at[None, None, :] - np.float32(shape.offset_mm[0]),
        at[None, :, None] - np.float32(shape.offset_mm[1]),
        z_mm[:, None, None].astype(np.float32) - np.float32(shape.offset_mm[2]),
    )
    turn = _rotation(shape.yaw, shape.pitch, shape.roll)
    x, y, z = (row[0] * world[0] + row[1] * world[1] + row[2] * world[2] for row in turn)
    return x, y, z


def inner_depth_mm(
    shape: HeadShape, x: FloatField, y: FloatField, z: FloatField, rng: np.random.Generator
) -> FloatField:
    """Give the depth below the inner table of an egg, narrower at the front, with a slightly uneven surface."""
    a, b, c = shape.half_mm
    narrow = x / (1.0 + 0.10 * y / b)
    squares = (narrow / a) ** 2, (y / b) ** 2, (z / c) ** 2
    radius = np.sqrt(squares[0] + squares[1] + squares[2]) + np.float32(1e-3)
    slope = np.sqrt(squares[0] / a**2 + squares[1] / b**2 + squares[2] / c**2) / radius + np.float32(1e-4)
    depth: FloatField = ((1.0 - radius) / slope + 1.2 * smooth_noise(rng, x.shape, (4, 5, 5))).astype(np.float32)
    return depth


def skull_floor_mm(x: FloatField, y: FloatField) -> FloatField:
    """Give the height of the skull base: anterior, middle and posterior fossa as three steps, low at the back."""
    front = _step(y, -28.0, 7.0)
    back = _step(y, 14.0, 8.0)
    middle = -36.0 + 10.0 * np.exp(-((x / 16.0) ** 2))  # the sella stands higher than the temporal fossae
    height: FloatField = (-20.0 * (1 - front) + front * (1 - back) * middle - 64.0 * front * back).astype(np.float32)
    return height


def _draw_outside(
    shape: HeadShape,
    depth: FloatField,
    floor: FloatField,
    x: FloatField,
    y: FloatField,
    z: FloatField,
    rng: np.random.Generator,
) -> FloatField:
    """Air, scalp, skull, and face and neck below the skull base."""
    hu = np.full(x.shape, AIR, np.float32)
    patches = smooth_noise(rng, x.shape, (6, 24, 24))
    outer = shape.skull_mm + shape.scalp_mm
    scalp = depth > -outer
    hu[scalp] = np.where(patches > 0.2, MUSCLE, FAT)[scalp]
    hu[(depth > -outer) & (depth < -outer + 2.0)] = SKIN
    thickness = shape.skull_mm * (1.0 + 0.15 * patches)
    skull = (depth <= 0) & (depth > -thickness) & (floor > -6.0)
    middle = np.abs(depth + thickness / 2) < thickness * 0.22
    hu[skull] = np.where(middle, DIPLOE, TABLE)[skull]
    below = (depth > -shape.skull_mm) & (floor <= 0)
    hu[below] = np.where(patches > -0.3, MUSCLE, FAT)[below]
    hu[below & (floor > -4.5)] = TABLE * 0.8
    _draw_face(hu, below, x, y, z)
    _draw_headrest(hu, shape, x, y)
    return hu


def _draw_face(hu: FloatField, below: BoolField, x: FloatField, y: FloatField, z: FloatField) -> None:
    """Petrous bones, mastoid cells, orbits with globes, nasal air."""
    side = np.abs(x)
    turned = (side - 38.0) * 0.85 + (y - 12.0) * 0.5, -(side - 38.0) * 0.5 + (y - 12.0) * 0.85
    petrous = (turned[0] / 27.0) ** 2 + (turned[1] / 8.0) ** 2 + ((z + 40.0) / 9.0) ** 2 < 1
    hu[petrous] = TABLE
    mastoid = _ball(side, y, z, (56.0, 22.0, -48.0), (8.0, 10.0, 12.0))
    hu[mastoid] = np.where(np.sin(side * 1.9) * np.sin(y * 1.7) > 0, -700.0, 500.0)[mastoid]
    orbit = _ball(side, y, z, (32.0, -66.0, -34.0), (17.0, 22.0, 15.0))
    hu[below & orbit] = FAT
    hu[below & _ball(side, y, z, (32.0, -74.0, -34.0), (12.0, 12.0, 12.0))] = 14.0
    nose = (side < 11.0) & (y < -40.0) & (y > -82.0) & (z < -26.0)
    hu[below & nose] = np.where(side < 1.2, 300.0, AIR)[below & nose]


def _draw_headrest(hu: FloatField, shape: HeadShape, x: FloatField, y: FloatField) -> None:
    radius = np.hypot(x, y + 20.0)
    shell = np.abs(radius - (shape.half_mm[1] + 42.0)) < 2.0
    hu[shell & (y > 25.0) & (hu < -900)] = 60.0


def _ventricles(shape: HeadShape, x: FloatField, y: FloatField, z: FloatField) -> BoolField:
    """Lateral ventricles (horns, bodies, atria), third and fourth ventricle."""
    side = np.abs(x)
    w = shape.ventricles
    frontal = _ball(side, y + 0.35 * side, z, (9.0, -24.0, 16.0), (5.0 * w, 15.0, 8.0 * w))
    body = _ball(side, y, z, (12.0, 0.0, 24.0), (5.5 * w, 26.0, 6.5 * w))
    atrium = _ball(side, y - 0.4 * side, z, (22.0, 20.0, 10.0), (7.0 * w, 16.0, 9.0 * w))
    third = _ball(x, y, z, (0.0, 2.0, 4.0), (2.2 * w, 14.0, 9.0))
    fourth = _ball(x, y, z, (0.0, 34.0, -36.0), (6.0 * w, 5.0 * w, 9.0))
    whole: BoolField = frontal | body | atrium | third | fourth
    return whole


def _subarachnoid_space(
    shape: HeadShape, depth: FloatField, x: FloatField, y: FloatField, z: FloatField, rng: np.random.Generator
) -> BoolField:
    """Fluid under the skull, sulci, Sylvian and interhemispheric fissures, basal cisterns."""
    folds = np.abs(smooth_noise(rng, x.shape, (14, 17, 17)))
    reach = 8.0 + 14.0 * shape.sulci
    sulci = (folds < 0.06 + 0.16 * shape.sulci) & (depth < reach) & (z > -15.0)
    gap = depth < shape.gap_mm * np.clip(1.0 + 0.5 * smooth_noise(rng, x.shape, (3, 5, 5)), 0.2, 2.0)
    side = np.abs(x)
    sheet = np.abs(y + 10.0 + 0.7 * z - 0.3 * (side - 45.0))  # lies across axial slices: a line on each
    sylvian = (sheet < 1.2 + 2.0 * shape.sulci) & (side > 34.0) & (np.abs(z - 3.0) < 17.0)
    between = (side < 0.8 + shape.sulci) & (depth < 34.0) & (z > 5.0)
    suprasellar = _ball(x, y, z, (0.0, -12.0, -23.0), (13.0, 11.0, 7.0))
    ring = np.hypot(x, 0.85 * (y - 14.0))
    ambient = (ring > 15.0) & (ring < 17.0 + 2.5 * shape.sulci) & (np.abs(z + 16.0) < 9.0) & ((y > 4.0) | (side > 9.0))
    whole: BoolField = sulci | gap | sylvian | between | suprasellar | ambient
    return whole


def _draw_inside(
    hu: FloatField,
    inside: BoolField,
    brain: BoolField,
    fluid: BoolField,
    depth: FloatField,
    x: FloatField,
    y: FloatField,
    z: FloatField,
    rng: np.random.Generator,
) -> None:
    """White and grey matter, fluid, an old infarct in some, and the brightening that hard rays leave by the bone."""
    side = np.abs(x)
    ribbon = np.abs(smooth_noise(rng, x.shape, (14, 17, 17))) < 0.45
    cortex = (depth < 4.5) | ((depth < 20.0) & ribbon)
    deep = _ball(side, y, z, (25.0, -4.0, 8.0), (7.0, 18.0, 10.0)) | _ball(
        side, y, z, (11.0, 9.0, 8.0), (8.0, 11.0, 8.0)
    )
    tissue = np.where(cortex | deep, GREY, WHITE) + 1.2 * smooth_noise(rng, x.shape, (5, 9, 9))
    hu[brain] = tissue[brain]
    if rng.random() < 0.25:
        centre = (rng.choice((-1, 1)) * rng.uniform(25, 50), rng.uniform(-50, 55), rng.uniform(-5, 45))
        infarct = _ball(x, y, z, centre, tuple(rng.uniform(8, 20, 3)))
        hu[brain & infarct] = rng.uniform(10, 24)
    hu[fluid] = CSF
    cupping = rng.uniform(0, 7) * np.exp(-np.maximum(depth, 0) / 6.0)
    streaks = -rng.uniform(0, 12) * np.exp(-(((z + 38.0) / 6.0) ** 2) - ((y - 12.0) / 12.0) ** 2) * np.sin(y * 0.7)
    hu[inside] += (cupping + np.where(side < 40.0, streaks, 0.0))[inside]


def _draw_dense_traps(
    hu: FloatField,
    inside: BoolField,
    depth: FloatField,
    x: FloatField,
    y: FloatField,
    z: FloatField,
    rng: np.random.Generator,
) -> None:
    """What is dense and no blood: falx, tentorium, venous sinuses, calcifications of pineal, plexus and ganglia."""
    side = np.abs(x)
    wobble = 0.8 * smooth_noise(rng, x.shape, (2, 3, 2))
    falx = (np.abs(x + wobble) < rng.uniform(0.5, 1.1)) & (z > 8.0) & (depth < rng.uniform(22, 36))
    tent_z = -22.0 + 20.0 * (1.0 - np.minimum(side / 55.0, 1.0))
    tentorium = (np.abs(z - tent_z) < 1.1) & (y > 20.0) & (depth < 45.0)
    hu[inside & (falx | tentorium)] = DURA + rng.uniform(-6, 6)
    sagittal = (side < 5.0) & (depth < 6.0 - 0.8 * side) & (z > -10.0) & (y > -50.0)
    transverse = (np.abs(z + 24.0) < 4.0) & (depth < 5.5) & (y > 28.0) & (side > 4.0)
    hu[inside & (sagittal | transverse)] = SINUS + rng.uniform(-6, 6)
    for centre, radius, chance in (
        ((0.0, 20.0, 7.0), 2.8, 0.6),
        ((23.0, 30.0, 10.0), 3.6, 0.6),
        ((-23.0, 30.0, 10.0), 3.6, 0.6),
        ((21.0, -6.0, 6.0), 3.5, 0.2),
        ((-21.0, -6.0, 6.0), 3.5, 0.2),
        ((0.0, rng.uniform(-55, 40), 55.0), 3.0, 0.3),
    ):
        if rng.random() < chance:
            size = radius * rng.uniform(0.85, 1.4, 3)
            hu[inside & _ball(x, y, z, centre, tuple(size))] = rng.uniform(300, 900)


def _ball(x: FloatField, y: FloatField, z: FloatField, centre: tuple[float, ...], half: tuple[float, ...]) -> BoolField:
    inside: BoolField = (
        ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 + ((z - centre[2]) / half[2]) ** 2
    ) < 1.0
    return inside


def _step(value: FloatField, at: float, width: float) -> FloatField:
    share: FloatField = (1.0 / (1.0 + np.exp(-(value - at) / width))).astype(np.float32)
    return share


def _rotation(yaw: float, pitch: float, roll: float) -> npt.NDArray[np.float32]:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    turn: npt.NDArray[np.float32] = (about_z @ about_x @ about_y).astype(np.float32)
    return turn
