"""Runs that a few seconds can train: a grid of 48 x 48, phantoms of 8 slices; as values and as text of a run file."""

from __future__ import annotations

import json
from collections.abc import Mapping

GRID = {"rows": 48, "columns": 48, "spacing_mm": (5.0, 5.0, 5.0)}
CROP = (48, 48)
PHANTOMS = {
    "kind": "phantom",
    "count": 3,
    "bleed_share": 0.7,
    "bleed_ml": (30.0, 60.0),
    "size": 96,
    "slices": 8,
    "seed": 5,
}


def table(heading: str, values: Mapping[str, object]) -> str:
    """Write a table of a TOML file, which has numbers, texts, truths and lists as JSON has them."""
    return "\n".join([heading, *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""])


def grid(pixel_mm: float = 5.0) -> str:
    return table("[grid]", GRID | {"spacing_mm": (5.0, 5.0, pixel_mm)})


def network(*, widths: tuple[int, ...] = (4, 8), **optimiser: object) -> str:
    """Grid, network and optimiser, untracked."""
    steps = {"steps": 2, "batch": 4, "crop": CROP} | optimiser
    return (
        grid()
        + table("[network]", {"widths": widths})
        + table("[tracking]", {"on": False})
        + table("[optimiser]", steps)
    )


def phantoms(part: str = "source", **changes: object) -> str:
    """A table of phantoms, to stand behind all others."""
    return table(f"[[{part}]]", PHANTOMS | changes)
