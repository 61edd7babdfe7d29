"""`make demo ONCE=1` as a newcomer runs it: bleeds flagged, the others not, no process left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import ct_series, write_files
from tests.end_to_end.conftest import needs_model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run_demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    needs_model()
    return subprocess.run(
        [sys.executable, "demo.py", "--once", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def processes_with(text: str) -> list[str]:
    """Command lines of all processes that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if text in command:
            found.append(command)
    return found


def test_demo_flags_each_bleed_and_no_other_phantom_and_leaves_nothing(tmp_path: Path) -> None:
    done = run_demo(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    results = [line for line in done.stdout.splitlines() if "PHANTOM" in line]
    flagged = ["FLAGGED" in line for line in results]
    assert len(results) == 6
    assert flagged == sorted(flagged, reverse=True)  # flagged first
    assert sum(flagged) == 3
    assert "sign in as reader" in done.stdout
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_demo_of_a_folder_shows_what_was_not_analysed_and_why(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_files(ct_series(slices=6), tmp_path / "scans")

    done = run_demo(tmp_path / "run", "--from", str(tmp_path / "scans"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Too few slices (6 slices; expected at least 10)" in " ".join(done.stdout.split())
