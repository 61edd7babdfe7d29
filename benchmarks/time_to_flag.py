"""`make bench`: from the last image's 0x0000 to the flag on a radiologist's open list, on this machine.

A lone bleeding study of 40 slices of 512 x 512 is pushed through the real C-STORE port while a signed-in reader has
the list open; repeated, with the time of each step.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from local_stack import LocalStack
from signed_in_reader import SignedInReader
from triage.errors import TriageError
from triage.ledger import Ledger
from triage.ledger.studies import Studies
from triage.settings import load_settings
from triage.study import Study

SLICES = 40
GOAL_S = 10.0
console = Console()


class NotFlagged(TriageError):
    """The bleeding study was not flagged: a time to the flag cannot be given."""


@dataclass(frozen=True)
class Times:
    """Seconds after the sender had the last image's answer."""

    complete_s: float
    started_s: float
    found_s: float
    on_the_list_s: float


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Studies, one after the other.")
def bench(repeats: int) -> None:
    """Measure the time from the last image to the flag on the list."""
    with tempfile.TemporaryDirectory(prefix="ich-triage-bench-") as folder:
        phantoms = write_phantoms(Path(folder) / "phantoms", repeats)
        with LocalStack(Path(folder) / "storage") as stack:
            stack.wait_ready("serve")
            stack.wait_ready("listen")
            times = [one_study(stack, study, number) for number, study in enumerate(phantoms)]
    console.print(table_of(times))
    worst = max(each.on_the_list_s for each in times)
    console.print(
        f"Slowest {worst:.2f} s; goal at most {GOAL_S:.0f} s; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}."
    )
    sys.exit(0 if worst <= GOAL_S else 1)


def write_phantoms(folder: Path, count: int) -> list[Path]:
    """Write bleeding phantoms, one folder a study."""
    command = [
        sys.executable,
        "-m",
        "ich_triage",
        "phantoms",
        str(folder),
        "--count",
        str(count),
        "--bleeds",
        str(count),
    ]
    subprocess.run(
        [*command, "--slices", str(SLICES), "--seed", "5", "--smallest-ml", "20"], check=True, stdout=subprocess.DEVNULL
    )
    return sorted(path for path in folder.iterdir() if path.is_dir())


def one_study(stack: LocalStack, folder: Path, number: int) -> Times:
    """Push one study under the eyes of a reader whose list is open.

    Raises:
        NotFlagged: it did not appear flagged within a minute.
    """
    reader = SignedInReader.of(stack, f"reader{number}")
    seen = _Seen(reader, flags=number + 1)
    command = [
        sys.executable,
        "-m",
        "ich_triage",
        "send",
        str(folder),
        "--port",
        str(stack.wait_ready("listen")["dicom_port"]),
    ]
    subprocess.run(command, check=True, capture_output=True)
    on_the_list_at = seen.wait()
    study = _newest(stack)
    if on_the_list_at is None:
        raise NotFlagged(f"The study was not flagged; it is {study.state.value} {study.detail}")
    moments = (study.complete_at, study.started_at, study.found_at, on_the_list_at)
    return Times(*((moment or 0.0) - study.last_image_at for moment in moments))


def table_of(times: list[Times]) -> Table:
    """Draw median and worst of each step."""
    table = Table(
        title=f"Seconds after the last of {SLICES} images (512 x 512), {len(times)} studies", title_justify="left"
    )
    for name in ("until", "median", "worst"):
        table.add_column(name, justify="left" if name == "until" else "right")
    for name, text in (
        ("complete_s", "complete, queued"),
        ("started_s", "taken by the worker"),
        ("found_s", "finding recorded"),
        ("on_the_list_s", "flag on the open list"),
    ):
        values = [getattr(each, name) for each in times]
        table.add_row(text, f"{statistics.median(values):.2f}", f"{max(values):.2f}")
    return table


class _Seen:
    """Follows a list in the background until it shows `flags` unread flags."""

    def __init__(self, reader: SignedInReader, *, flags: int) -> None:
        self._reader = reader
        self._flags = flags
        self._at: float | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        self._opened.wait(30)

    def wait(self, timeout_s: float = 60.0) -> float | None:
        self._thread.join(timeout_s)
        return self._at

    def _follow(self) -> None:
        for update in self._reader.updates():
            self._opened.set()
            if update["flags"] >= self._flags:
                self._at = time.time()
                return


def _newest(stack: LocalStack) -> Study:
    ledger = Ledger(load_settings(stack.config).storage.ledger_path)
    study = Studies(ledger).all()[-1]
    ledger.close()
    return study


if __name__ == "__main__":
    bench()
