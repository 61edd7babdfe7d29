"""Line plots as SVG text, for pages that must need nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

SIDE = 260  # pixels
COLOURS = ("#06c", "#c30", "#083", "#909", "#a60", "#555")

Points = Sequence[tuple[float, float]]


def plot(title: str, lines: Mapping[str, Points], *, diagonal: bool = False) -> str:
    """Draw lines over their common range; the title and each line's name stand below.

    Args:
        title: what is drawn.
        lines: by name, points (x, y) in any order; those that are not numbers are left out.
        diagonal: also draw y = x, and both axes from 0 to 1.
    """
    drawn = {name: sorted(p for p in points if not any(math.isnan(v) for v in p)) for name, points in lines.items()}
    low_x, high_x = (0.0, 1.0) if diagonal else _range([x for points in drawn.values() for x, _ in points])
    low_y, high_y = (0.0, 1.0) if diagonal else _range([y for points in drawn.values() for _, y in points])
    shapes = f"<line x1='0' y1='{SIDE}' x2='{SIDE}' y2='0' stroke='#bbb'/>" if diagonal else ""
    keys = []
    for colour, (name, points) in zip(COLOURS * (len(drawn) // len(COLOURS) + 1), drawn.items(), strict=False):
        at = [(SIDE * (x - low_x) / (high_x - low_x), SIDE * (high_y - y) / (high_y - low_y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        shapes += f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
        keys.append(f"<span style='color:{colour}'>{html.escape(name)}</span>")
    scale = "" if diagonal else f" ({low_x:g} to {high_x:g}; {low_y:.3g} to {high_y:.3g})"
    return (
        f"<figure><svg viewBox='-4 -4 {SIDE + 8} {SIDE + 8}' width='{SIDE}' role='img'>{shapes}</svg>"
        f"<figcaption>{html.escape(title + scale)}<br>{' '.join(keys)}</figcaption></figure>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low, low + 1.0)
