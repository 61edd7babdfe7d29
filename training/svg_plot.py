"""Line plots as SVG text, and the page around them, which needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 300, 260  # of the area within the axes, pixels
LEFT, TOP, BELOW = 52, 8, 44  # for numbers and labels
TICKS = 5  # about so many steps between the numbers of an axis
COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#86198f", "#a16207", "#475569")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;margin:2rem auto;max-width:72rem;padding:0 1rem}"
    "h1{font-size:1.6rem}h2{font-size:1.2rem;margin:2rem 0 .5rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25rem .9rem .25rem 0;border-bottom:1px solid #e5e7eb;text-align:left;vertical-align:top}"
    "th{font-weight:600}.wide{overflow-x:auto}.plots{display:flex;flex-wrap:wrap;gap:1.5rem}"
    "figure{display:inline-block;margin:1rem 1.5rem 1rem 0;vertical-align:top}"
    "figcaption{font-weight:600;margin-bottom:.25rem}.key{font-size:.85rem;margin-right:.8rem}"
    "svg text{font:11px system-ui,sans-serif;fill:#4b5563}.note{color:#4b5563}"
)

Points = Sequence[tuple[float, float]]


def html_page(title: str, body: str) -> str:
    """Give a whole page; the body is markup, the title text."""
    name = html.escape(title)
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{name}</title><style>{STYLE}</style><h1>{name}</h1>{body}</html>\n"
    )


def plot(
    title: str,
    lines: Mapping[str, Points],
    *,
    diagonal: bool = False,
    scatter: bool = False,
    dots: bool = False,
    levels: Sequence[float] = (),
    x_label: str = "",
    y_label: str = "",
) -> str:
    """Draw lines over their common range, with axes; a key names them where there are several.

    Args:
        title: what is drawn.
        lines: by name, points (x, y) in any order; those that are not finite are left out.
        diagonal: also draw y = x, and both axes from 0 to 1.
        scatter: draw points and no lines.
        dots: draw points on the lines.
        levels: y of dashed horizontal lines.
        x_label: name and unit of x.
        y_label: name and unit of y.
    """
    drawn = {name: sorted(p for p in points if all(map(math.isfinite, p))) for name, points in lines.items()}
    x_ends = (0.0, 1.0) if diagonal else _ends([x for points in drawn.values() for x, _ in points])
    y_ends = (0.0, 1.0) if diagonal else _ends([*(y for points in drawn.values() for _, y in points), *levels])

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_ends[0]) / (x_ends[1] - x_ends[0]), (y - y_ends[0]) / (y_ends[1] - y_ends[0])
        return LEFT + WIDTH * across, TOP + HEIGHT * (1.0 - up)

    shapes = [_axes(x_ends, y_ends, x_label, y_label)]
    if diagonal:
        shapes.append(_path([at(0, 0), at(1, 1)], "#9ca3af", "1", dashed=True))
    shapes.extend(_path([at(x_ends[0], y), at(x_ends[1], y)], "#9ca3af", "1", dashed=True) for y in levels)
    for place, points in enumerate(drawn.values()):
        colour = COLOURS[place % len(COLOURS)]
        places = [at(x, y) for x, y in points]
        if not scatter:
            shapes.append(_path(places, colour, "2"))
        if scatter or dots or len(places) == 1:
            shapes.extend(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in places)
    width, height, name = LEFT + WIDTH + 12, TOP + HEIGHT + BELOW, html.escape(title)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img' aria-label='{name}'>"
        f"{''.join(shapes)}</svg>{_key(list(drawn))}</figure>"
    )


def roc_plot(title: str, lines: Mapping[str, Points]) -> str:
    """Draw receiver operating characteristics: points (false, true positive share)."""
    return plot(title, lines, diagonal=True, x_label="false positive share", y_label="true positive share")


def _axes(x_ends: tuple[float, float], y_ends: tuple[float, float], x_label: str, y_label: str) -> str:
    """Draw the frame, numbers at both axes, and their labels."""
    bottom, parts = TOP + HEIGHT, []
    for value in _ticks(y_ends):
        y = bottom - HEIGHT * (value - y_ends[0]) / (y_ends[1] - y_ends[0])
        parts.append(f"<line x1='{LEFT}' y1='{y:.1f}' x2='{LEFT + WIDTH}' y2='{y:.1f}' stroke='#e5e7eb'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{_number(value)}</text>")
    for value in _ticks(x_ends):
        x = LEFT + WIDTH * (value - x_ends[0]) / (x_ends[1] - x_ends[0])
        parts.append(f"<text x='{x:.1f}' y='{bottom + 16}' text-anchor='middle'>{_number(value)}</text>")
    frame = f"<rect x='{LEFT}' y='{TOP}' width='{WIDTH}' height='{HEIGHT}' fill='none' stroke='#9ca3af'/>"
    middle = TOP + HEIGHT / 2
    turned = f"transform='rotate(-90 12 {middle})'"
    parts.append(
        f"<text x='{LEFT + WIDTH / 2}' y='{bottom + 34}' text-anchor='middle'>{html.escape(x_label)}</text>"
        f"<text x='12' y='{middle}' text-anchor='middle' {turned}>{html.escape(y_label)}</text>"
    )
    return frame + "".join(parts)


def _path(points: Points, colour: str, width: str, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = " stroke-dasharray='4 4'" if dashed else ""
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width}'{dashes}/>"


def _key(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    squares = (f"<span style='color:{COLOURS[place % len(COLOURS)]}'>&#9632;</span>" for place in range(len(names)))
    keys = (
        f"<span class='key'>{square} {html.escape(name)}</span>" for square, name in zip(squares, names, strict=True)
    )
    return f"<div>{''.join(keys)}</div>"


def _number(value: float) -> str:
    return f"{round(value, 10):g}"  # 0.1 + 0.2 is 0.3 here


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Give the range to draw, from one round number to another."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = _step((high - low) / TICKS)
    return step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)


def _step(least: float) -> float:
    """Give the smallest of 1, 2, 2.5, 5 or 10 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1.0, 2.0, 2.5, 5.0, 10.0) if power * times >= least * (1 - 1e-9))


def _ticks(ends: tuple[float, float]) -> list[float]:
    step = _step((ends[1] - ends[0]) / TICKS)
    return [ends[0] + step * place for place in range(round((ends[1] - ends[0]) / step) + 1)]
