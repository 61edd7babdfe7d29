"""Run files that a few seconds can train: a grid of 48 x 48, phantoms of 8 slices."""

from __future__ import annotations

GRID = """
[grid]
rows = 48
columns = 48
spacing_mm = [5.0, 5.0, {pixel_mm}]
"""
NETWORK = """
[network]
widths = {widths}
[tracking]
on = false
[optimiser]
crop = [48, 48]
{optimiser}
"""
PHANTOMS = """
[[{part}]]
kind = "phantom"
count = {count}
bleed_share = 0.7
bleed_ml = [30.0, 60.0]
size = 96
slices = 8
seed = {seed}
"""


def grid(pixel_mm: float = 5.0) -> str:
    return GRID.format(pixel_mm=pixel_mm)


def network(*, widths: str = "[4, 8]", optimiser: str = "steps = 2\nbatch = 4") -> str:
    return grid() + NETWORK.format(widths=widths, optimiser=optimiser)


def phantoms(part: str = "source", *, seed: int = 5, count: int = 3) -> str:
    """Tables of phantoms, to stand behind all others."""
    return PHANTOMS.format(part=part, seed=seed, count=count)
