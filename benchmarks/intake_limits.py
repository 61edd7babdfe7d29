"""What the listener keeps up when there is much of something (`make bench-intake-limits`).

The time of one C-STORE, memory with many associations and after thousands, and the rate with a million rows in the
ledger or two thousand slices in a study, each beside the usual case in the same run.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from rich.console import Console
from rich.table import Table

from benchmarks.intake import cpu_seconds, free_port, ours, peak_mb, push, wait_for
from tests.builders import ct_series, encoded, write_files
from tests.dicom_listener.raw_peer import RawPeer
from triage.ledger import Ledger

ROWS_A_STUDY = 40
PDV_BYTES = 131_000


@dataclass(frozen=True)
class Serving:
    """A listener in a process of its own."""

    port: int
    pid: int
    folder: Path


@contextmanager
def serving(folder: Path) -> Iterator[Serving]:
    """Run `ich-triage listen` on a folder that may hold a ledger already."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (folder / "listener.log").open("wb") as said:
        process = subprocess.Popen(
            ours(folder, port), stdout=said, stderr=said, cwd=Path(__file__).parents[1],
            env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        try:
            wait_for(port)
            yield Serving(port, process.pid, folder)
        finally:
            process.terminate()
            process.wait(timeout=60)


def resident_mb(pid: int) -> float:
    """Give the memory that a process has resident now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def slices(count: int, side: int = 512) -> list[Dataset]:
    """Make one study of noise, so that nothing of it is alike."""
    noise = np.random.default_rng(count).integers(-100, 100, (1, side, side)).astype(np.float32)
    return ct_series(spacing_mm=(0.1, 0.5, 0.5), hu=np.repeat(noise, count, axis=0))


def store_times(server: Serving, images: int) -> list[float]:
    """Give the seconds of each C-STORE, from its first byte to its answer, over one association."""
    series = slices(images)
    contents = [encoded(ds) for ds in series]
    times = []
    with RawPeer(server.port, timeout_s=60.0) as peer:
        peer.associate()
        for ds, content in zip(series, contents, strict=True):
            began = time.perf_counter()
            assert peer.store(content, ds.SOPInstanceUID, pdv_bytes=PDV_BYTES) == 0
            times.append(time.perf_counter() - began)
        peer.release()
    return times


def memory_of_associations(server: Serving, count: int) -> float:
    """Give the peak memory after so many associations have pushed an image each, all at once, again and again."""
    series = slices(4)
    contents = [encoded(ds) for ds in series]

    def one() -> None:
        with RawPeer(server.port, timeout_s=60.0) as peer:
            peer.associate()
            for ds, content in zip(series, contents, strict=True):
                peer.store(content, ds.SOPInstanceUID, pdv_bytes=PDV_BYTES)
            peer.release()

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return peak_mb(server.pid)


def growth_over(server: Serving, associations: int) -> tuple[float, float]:
    """Give the memory after a tenth of the associations, and after all; each pushes a small image."""
    [ds] = slices(1, side=64)
    content = encoded(ds)
    early = 0.0
    for number in range(associations):
        with RawPeer(server.port, timeout_s=60.0) as peer:
            peer.associate()
            peer.store(content, ds.SOPInstanceUID)
            peer.release()
        if number == associations // 10:
            early = resident_mb(server.pid)
    return early, resident_mb(server.pid)


def fill_ledger(folder: Path, rows: int) -> None:
    """Put rows of studies that were read long ago into a ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    Ledger(folder / "ledger.sqlite").close()
    connection = sqlite3.connect(folder / "ledger.sqlite")
    with connection:
        connection.executemany(
            "INSERT INTO studies (study_instance_uid, state, revision, change, instance_count, fence, attempts,"
            " first_image_at, last_image_at, reading_state) VALUES (?, 'analysed', 1, ?, ?, 0, 0, 0, 0, 'read')",
            ((f"1.2.3.{number}", number + 1, ROWS_A_STUDY) for number in range(rows // ROWS_A_STUDY)),
        )
        connection.executemany(
            "INSERT INTO instances (sop_instance_uid, study_instance_uid, series_instance_uid, path, blake3,"
            " received_at, size_bytes) VALUES (?, ?, ?, ?, ?, 0, 0)",
            ((f"1.2.4.{number * 7919 % rows}", f"1.2.3.{number // ROWS_A_STUDY}", f"1.2.5.{number // ROWS_A_STUDY}",
              f"instances/{number % 256:02x}/{number // ROWS_A_STUDY:032x}/{number}.dcm", f"{number:064x}")
             for number in range(rows)),
        )  # fmt: skip
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def rate(server: Serving, folder: Path) -> float:
    """Give the images a second of one dcmsend."""
    return sum(1 for _ in folder.iterdir()) / push("dcmsend", server.port, [folder])


def rates_by_rows(folder: Path, counts: Sequence[int], images: int, rounds: int) -> dict[int, float]:
    """Give the median rate with so many rows in the ledger, in turns."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for count in counts:
        fill_ledger(folder / f"rows{count}", count)
    for number in range(rounds):
        scan = folder / f"scan{number}"
        for count in counts:
            write_files(slices(images), scan)
            with serving(folder / f"rows{count}") as server:
                time.sleep(5.0 + count / 100_000)  # until it has looked for files that are gone
                found[count].append(rate(server, scan))
            shutil.rmtree(scan)
    return {count: statistics.median(values) for count, values in found.items()}


def rates_by_slices(server: Serving, folder: Path, usual: int, many: int) -> tuple[float, float]:
    """Give the images a second of studies of the usual size and of one large one, as many images each."""
    small = [folder / f"small{number}" for number in range(many // usual)]
    for path in small:
        write_files(slices(usual), path)
    large = folder / "large"
    write_files(slices(many), large)
    seconds = sum(push("dcmsend", server.port, [path]) for path in small)
    return many / seconds, rate(server, large)


def measured(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Measure one thing after another, each with listeners of its own."""
    with serving(folder / "one") as server:
        before_s = cpu_seconds(server.pid)
        times = sorted(store_times(server, options.images))
        cpu_ms = (cpu_seconds(server.pid) - before_s) / options.images * 1000
        chosen = [times[min(len(times) - 1, int(share * len(times)))] * 1000 for share in (0.5, 0.99, 1.0)]
        yield "one C-STORE: median, 99 %, longest", ", ".join(f"{value:.1f} ms" for value in chosen)
        yield "CPU of one C-STORE", f"{cpu_ms:.2f} ms"
    with serving(folder / "many") as server:
        yield "peak memory, 32 associations at once", f"{memory_of_associations(server, 32):.0f} MB"
    with serving(folder / "slices") as server:
        usual, many = options.slices
        small, large = rates_by_slices(server, folder, usual, many)
        yield f"studies of {usual} slices; one of {many:,}", compared(small, large)
    few, many = options.rows
    rates = rates_by_rows(folder, options.rows, 200, options.rounds)
    yield f"{few:,} rows in the ledger; {many:,}", compared(rates[few], rates[many])
    with serving(folder / "long") as server:
        early, late = growth_over(server, options.associations)
        yield (
            f"memory after {options.associations // 10:,}; {options.associations:,} associations",
            (f"{early:.0f}; {late:.0f} MB"),
        )


def compared(usual: float, extreme: float) -> str:
    """Word two rates."""
    return f"{usual:.0f}; {extreme:.0f} images/s ({extreme / usual:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500, help="whose time is taken one by one")
    parser.add_argument("--associations", type=int, default=10_000, help="one after another")
    parser.add_argument("--rows", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--slices", type=int, nargs=2, default=[40, 2000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table("what", "measured")
    with tempfile.TemporaryDirectory(prefix="intake-limits-") as name:
        for row in measured(Path(name), options):
            print(*row, sep=": ", file=sys.stderr)
            table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
