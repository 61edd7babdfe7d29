"""How fast images are taken, beside other receivers in the same run, on loopback (`make bench-intake`).

Senders are DCMTK's dcmsend and storescu as they ship. Each round asks every receiver in turn, so that a busy moment of
the machine hits all of them, and begins with another one; the tables have medians. Ours and Orthanc sync each image
before they answer, the others leave that to the kernel: a push is over when all of it is on the disk, for all receivers
alike. A second table has the rates until the last answer, when a power cut may still take what the others have answered
for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.builders import ct_series, write_files

Rate = Callable[["Measured"], float]
SENDERS = ("dcmsend", "storescu")
IMAGES = 400  # of a push; the senders take 30 ms to start, which must not be what is measured
READY_S = 20.0
CALLED_AE_TITLE = "ICHTRIAGE"


@dataclass(frozen=True)
class Receiver:
    """A program that takes C-STORE, and how it is started in an empty folder on a port."""

    name: str
    command: Callable[[Path, int], list[str]]
    environment: dict[str, str] | None = None


@dataclass(frozen=True)
class Measured:
    """One push to one receiver.

    Attributes:
        images_per_s: until all of it is on the disk.
        answered_per_s: until the last answer.
        cpu_s_per_gb: of the receiver, with its ended children.
        peak_mb: the most memory that it had resident.
    """

    images_per_s: float
    answered_per_s: float
    cpu_s_per_gb: float
    peak_mb: float


def ours(folder: Path, port: int) -> list[str]:
    """Our listener, with everything on."""
    config = folder / "triage.toml"
    config.write_text(f'[storage]\nfolder = "{folder}/var"\n[listener]\nhost = "127.0.0.1"\nport = {port}\n')
    return [sys.executable, "-m", "ich_triage", "listen", "--config", str(config)]


def storescp(folder: Path, port: int) -> list[str]:
    """DCMTK's receiver as it ships."""
    return ["storescp", "--output-directory", str(folder), str(port)]


def storescp_tuned(folder: Path, port: int) -> list[str]:
    """DCMTK's receiver at its best: large PDUs, a process for each association; TCP_NODELAY is in the environment."""
    return ["storescp", "--fork", "--max-pdu", "131072", "--output-directory", str(folder), str(port)]


def pynetdicom_app(folder: Path, port: int) -> list[str]:
    """What pynetdicom brings along."""
    return [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(folder)]


def orthanc(folder: Path, port: int) -> list[str]:
    """Debian's Orthanc with its defaults, but for ports and folder."""
    config = folder / "orthanc.json"
    settings = {"DicomPort": port, "HttpPort": free_port(), "StorageDirectory": str(folder / "db"),
                "IndexDirectory": str(folder / "db"), "DicomAet": CALLED_AE_TITLE, "Plugins": []}  # fmt: skip
    config.write_text(json.dumps(settings))
    return ["Orthanc", str(config)]


RECEIVERS = (
    Receiver("ich-triage", ours),
    Receiver("storescp", storescp),
    Receiver("storescp tuned", storescp_tuned, {"TCP_NODELAY": "1"}),
    Receiver("pynetdicom storescp", pynetdicom_app),
    Receiver("Orthanc", orthanc),
)


def free_port() -> int:
    """Give a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_scans(folder: Path, *, associations: int, slices: int) -> list[Path]:
    """Write one folder of 512 x 512 x 16-bit slices for each association."""
    noise = np.random.default_rng(1).integers(-100, 100, (slices, 512, 512), dtype=np.int16).astype(np.float32)
    folders = [folder / f"scan{number}" for number in range(associations)]
    for path in folders:
        write_files(ct_series(spacing_mm=(5.0, 0.5, 0.5), hu=noise), path)
    return folders


def push(sender: str, port: int, folders: Sequence[Path]) -> float:
    """Push all folders at once, an association each; give the seconds it took."""
    commands = [[sender, "-aec", CALLED_AE_TITLE, "127.0.0.1", str(port), "+sd", str(path)] for path in folders]
    began = time.perf_counter()
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - began
    if any(codes):
        raise SystemExit(f"{sender} ended with {codes}")
    return seconds


def measure(receiver: Receiver, sender: str, folders: Sequence[Path], folder: Path) -> Measured:
    """Start a receiver in an empty folder, push to it once, and end it."""
    os.sync()  # what the receiver before left to be written later must not cost this one
    port = free_port()
    environment = {"PATH": "/usr/sbin:/usr/bin:/bin", **(receiver.environment or {})}
    process = subprocess.Popen(
        receiver.command(folder, port), env=environment, cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port)
        cpu_s = cpu_seconds(process.pid)
        files = [path for name in folders for path in name.iterdir()]
        seconds = push(sender, port, folders)
        written_s = seconds_to_write(folder)
        bytes_sent = sum(path.stat().st_size for path in files)
        return Measured(
            images_per_s=len(files) / (seconds + written_s),
            answered_per_s=len(files) / seconds,
            cpu_s_per_gb=(cpu_seconds(process.pid) - cpu_s) / bytes_sent * 1e9,
            peak_mb=peak_mb(process.pid),
        )
    finally:
        process.terminate()
        process.wait(timeout=30)


def seconds_to_write(folder: Path) -> float:
    """Let the kernel write what it still holds for the file system of a folder; give the seconds it took."""
    began = time.perf_counter()
    subprocess.run(["sync", "--file-system", str(folder)], check=True)
    return time.perf_counter() - began


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(0.3)  # storescp without --fork serves this probe first
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port} within {READY_S} s")


def cpu_seconds(pid: int) -> float:
    """Give user and system time of a process and its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / 100


def peak_mb(pid: int) -> float:
    """Give the most memory a process had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def table_of(
    results: dict[tuple[str, str, int], list[Measured]], receivers: Sequence[Receiver], rate: Rate, title: str
) -> Table:
    """Lay the medians out, a row a receiver."""
    columns = sorted({(sender, count) for _, sender, count in results})
    table = Table(title=f"{title}: images/s, median (ratio: ours to it)")
    for heading in ("receiver", *(f"{sender}, {count} assoc." for sender, count in columns), "CPU s/GB", "peak MB"):
        table.add_column(heading, justify="right" if heading != "receiver" else "left")
    for receiver in receivers:
        cells = []
        for sender, count in columns:
            median = statistics.median(map(rate, results[receiver.name, sender, count]))
            ratio = statistics.median(map(rate, results["ich-triage", sender, count])) / median
            cells.append(f"{median:.0f}" if receiver.name == "ich-triage" else f"{median:.0f} ({ratio:.2f}x)")
        mine = [item for key, items in results.items() if key[0] == receiver.name for item in items]
        cpu = statistics.median(item.cpu_s_per_gb for item in mine)
        table.add_row(receiver.name, *cells, f"{cpu:.1f}", f"{max(item.peak_mb for item in mine):.0f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=IMAGES, help="of a push, over all of its associations")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--receivers", nargs="+", default=[receiver.name for receiver in RECEIVERS])
    parser.add_argument("--senders", nargs="+", default=list(SENDERS))
    options = parser.parse_args()
    receivers = [item for item in RECEIVERS if item.name in options.receivers]
    receivers = [item for item in receivers if item.name != "Orthanc" or shutil.which("Orthanc")]
    results: dict[tuple[str, str, int], list[Measured]] = {}
    # All is removed at the end: a file system without journal searches around inodes that were freed a minute ago, and
    # the next receiver would pay for it.
    with tempfile.TemporaryDirectory(prefix="intake-") as name:
        scans = {
            count: write_scans(Path(name) / f"{count}", associations=count, slices=options.images // count)
            for count in options.associations
        }
        for number in range(options.rounds):
            for sender in options.senders:
                for count in options.associations:
                    for receiver in receivers[number % len(receivers) :] + receivers[: number % len(receivers)]:
                        folder = Path(name) / f"{number}-{sender}-{count}-{receiver.name.replace(' ', '-')}"
                        folder.mkdir()
                        measured = measure(receiver, sender, scans[count], folder)
                        results.setdefault((receiver.name, sender, count), []).append(measured)
                        print(receiver.name, sender, count, f"{measured.images_per_s:.0f} images/s", file=sys.stderr)
    console = Console(width=140)
    console.print(table_of(results, receivers, lambda item: item.images_per_s, "until on the disk"))
    console.print(table_of(results, receivers, lambda item: item.answered_per_s, "until the last answer"))


if __name__ == "__main__":
    main()
