"""The report of a data check: a table for the terminal and one page that needs no other file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rich.table import Table

from training.data_check import CheckedScan, SourceTally
from training.scan_faults import FaultAction, ScanFault, ScanFinding
from training.thumbnails import data_url, thumbnail

PICTURES_A_FAULT = 24  # of each source; a page of thousands opens in no browser
SAMPLES_A_SOURCE = 8  # pictures of scans without a fault

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .8rem; text-align: left; }
th { border-bottom: 2px solid #5b6b82; } td { border-bottom: 1px solid #d6dce5; } td.n { text-align: right; }
figure { display: inline-block; margin: .4rem; width: 128px; vertical-align: top; font-size: 12px; }
figure img { width: 128px; height: 128px; background: #000; } figcaption { overflow-wrap: anywhere; }
.leak { border-left: 4px solid #b3261e; padding: .3rem 1rem; background: #fdecea; }
@media (prefers-color-scheme: dark) { body { background: #12161c; color: #dde4ee; } .leak { background: #3a1d1b; }
 td { border-color: #33404f; } }
"""


@dataclass(frozen=True)
class Picture:
    """A picture in the report: empty `fault` for a sample without one."""

    source: str
    fault: str
    caption: str
    url: str


@dataclass
class Album:
    """Pictures for the report, chosen while scans stream by; the first of each fault, so that memory stays flat."""

    pictures: list[Picture] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, source: str, checked: CheckedScan) -> None:
        """Take a picture of a scan where one of its faults, or its source, still has room."""
        if checked.shown is None:
            return
        found = [finding.fault.value for finding in checked.findings] or [""]
        wanted = [fault for fault in found if self.counts[source, fault] < self._room(fault)]
        if not wanted:
            return
        url = data_url(thumbnail(checked.shown))
        for fault in wanted:
            self.counts[source, fault] += 1
            self.pictures.append(Picture(source, fault, _caption(checked, fault), url))

    def _room(self, fault: str) -> int:
        return PICTURES_A_FAULT if fault else SAMPLES_A_SOURCE


def table_of(tallies: Sequence[SourceTally]) -> Table:
    """Give the table of a check: a row a source, and a row a fault with what is done about it."""
    table = Table(title="data check")
    for name, side in (("split", "left"), ("source", "left"), ("what", "left"), ("action", "left"), ("scans", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    for tally in tallies:
        table.add_row(tally.split, tally.source, "found", "", str(tally.scans))
        for fault, action, count in fault_counts(tally):
            table.add_row("", "", fault.value, action.value, str(count))
        table.add_row("", "", "fit", "", f"{tally.kept} ({tally.bleeding} with blood)", end_section=True)
    return table


def fault_counts(tally: SourceTally) -> list[tuple[ScanFault, FaultAction, int]]:
    """List the faults that a source has, with action and count."""
    counted = [(fault, action, tally.count(fault, action)) for fault in ScanFault for action in FaultAction]
    return [row for row in counted if row[2]]


def write_page(path: Path, tallies: Sequence[SourceTally], album: Album, leaks: Sequence[str]) -> None:
    """Write the report as one page; written beside and renamed, so that a half-written page is never seen."""
    parts = ["<h1>Data check</h1>", *_leaks(leaks), _summary(tallies)]
    for tally in tallies:
        parts.append(f"<h2>{escape(tally.source)} <small>in {escape(tally.split)}</small></h2>")
        parts.append(_findings(tally.findings))
        parts.extend(_figures(picture for picture in album.pictures if picture.source == _key(tally)))
    body = "\n".join(parts)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Data check</title><style>{STYLE}</style><body>{body}</body></html>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(page, encoding="utf-8")
    beside.rename(path)


def _key(tally: SourceTally) -> str:
    return f"{tally.split}/{tally.source}"


def _leaks(leaks: Sequence[str]) -> list[str]:
    return [f'<p class="leak">{escape(leak)}</p>' for leak in leaks]


def _summary(tallies: Sequence[SourceTally]) -> str:
    rows = [
        _row(tally.split, tally.source, tally.scans, tally.kept, tally.bleeding, _actions(tally)) for tally in tallies
    ]
    head = "<tr><th>split<th>source<th>scans<th>fit<th>with blood<th>what was done"
    return f"<table>{head}{''.join(rows)}</table>"


def _actions(tally: SourceTally) -> str:
    return "; ".join(f"{fault.value}: {count} {action.value}" for fault, action, count in fault_counts(tally)) or "-"


def _findings(findings: Sequence[ScanFinding]) -> str:
    if not findings:
        return "<p>No fault found.</p>"
    rows = [_row(finding.scan, finding.fault.value, finding.action.value, finding.measured) for finding in findings]
    return f"<table><tr><th>scan<th>fault<th>action<th>measured{''.join(rows)}</table>"


def _row(*cells: object) -> str:
    marked = (f"<td{' class=n' if isinstance(cell, int) else ''}>{escape(str(cell))}" for cell in cells)
    return f"<tr>{''.join(marked)}"


def _figures(pictures: Iterable[Picture]) -> list[str]:
    return [
        f'<figure><img alt="{escape(picture.caption, quote=True)}" src="{picture.url}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    ]


def _caption(checked: CheckedScan, fault: str) -> str:
    return f"{checked.name}: {fault}" if fault else checked.name
