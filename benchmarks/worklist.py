"""How fast the worklist is with 10,000 open studies and 200 open lists (`make bench-worklist`).

Everything goes through HTTP on loopback to `ich-triage worklist` as a hospital starts it. The ledger lies in memory
(/dev/shm) where there is one, so that filling it takes seconds; what is measured reads from it.
"""

from __future__ import annotations

import argparse
import http.client
import http.cookiejar
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.builders import ct_series, head_hu
from tests.worklist_ui.ledger_fill import Department, finding
from triage.ledger import Ledger
from triage.ledger.intake import Intake, Received
from triage.ledger.users import Users
from triage.ledger.work import WorkQueue
from triage.study import Instance, PatientHeader
from worklist_ui.passwords import hash_password

PASSWORD = "a password for the bench"
NAMES = ("Moreau^Claire", "Okafor^Chidi", "Lindqvist^Erik", "Haddad^Samir", "Tanaka^Yuki", "Novak^Petra")
SLICES = 40


@dataclass(frozen=True)
class Figure:
    """One measured figure and what it must not exceed."""

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is as good as was promised."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def fill(folder: Path, studies: int) -> Department:
    """Put `studies` analysed studies into a new ledger, one in fifty flagged, and one whole series of images."""
    department = Department(folder, Ledger(folder / "ledger.sqlite"), now=time.time())
    queue, intake = WorkQueue(department.ledger), Intake(department.ledger)
    for number in range(studies):
        uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        at = department.now - studies + number
        header = PatientHeader(
            patient_name=NAMES[number % len(NAMES)], patient_id=f"P{number:06d}", patient_sex="MF"[number % 2],
            patient_age=f"{20 + number % 70:03d}Y", accession_number=f"A{number:06d}",
            study_description="CT HEAD WO CONTRAST",
        )  # fmt: skip
        image = Instance(
            f"{uid}.1.1", f"{uid}.1", uid, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", Path(f"{uid}.dcm"),
            1, uid, at, calling_ae_title=f"CT{number % 7}",
        )  # fmt: skip
        intake.register([Received(image, header)], now=at)
        intake.complete(uid, instance_count=1, completed_by="geometry", now=at)
        claim = queue.claim_next(owner="worker", lease_s=60, now=at)
        assert claim is not None
        queue.record(claim, finding(f"{uid}.1", 1, flagged=number % 50 == 0), now=at)
    return department


def whole_study(department: Department) -> int:
    """Store one 40-slice 512 x 512 study; gives its number."""
    hu = head_hu(SLICES, 512, 512, pixel_mm=(0.45, 0.45))
    datasets = ct_series(spacing_mm=(4.0, 0.45, 0.45), hu=hu)
    department._register(datasets, PatientHeader(patient_name="Bench^Preview"), at=department.now, stat=False)
    study = department.studies.by_uid(datasets[0].StudyInstanceUID)
    assert study is not None
    department.find(department.complete(study), flagged=True)
    return study.study_id


@contextmanager
def serving(folder: Path, open_lists: int) -> Iterator[str]:
    """Run `ich-triage worklist` over a folder; gives its address."""
    config = folder / "triage.toml"
    config.write_text(f'[storage]\nfolder = "{folder}"\n[worklist]\nport = 0\nopen_lists = {open_lists + 10}\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "ich_triage", "worklist", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['worklist_port']}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


class Reader:
    """A signed-in browser without a screen; one connection, kept open."""

    def __init__(self, address: str) -> None:
        cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        page = self._opener.open(f"{address}/sign-in").read().decode()
        found = re.search(r'name="csrf-token" content="([^"]+)"', page)
        assert found is not None
        form = {"csrf_token": found.group(1), "username": "reader", "password": PASSWORD}
        answer = self._opener.open(f"{address}/sign-in", urllib.parse.urlencode(form).encode())
        assert answer.url.endswith("/list"), answer.url
        request = urllib.request.Request(f"{address}/list")
        cookies.add_cookie_header(request)
        self._cookie = request.get_header("Cookie") or ""
        self._host = urllib.parse.urlsplit(address).netloc
        self._connection = http.client.HTTPConnection(self._host, timeout=60)

    def get(self, path: str) -> bytes:
        """Fetch one page."""
        self._connection.request("GET", path, headers={"Cookie": self._cookie})
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 200, answer.status
        return content

    def stream(self) -> http.client.HTTPResponse:
        """Open a list that is kept up to date."""
        connection = http.client.HTTPConnection(self._host, timeout=60)
        connection.request("GET", "/list/stream", headers={"Cookie": self._cookie})
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        return answer


def timed_ms(call: Callable[[], object]) -> float:
    """Give how long a call takes, ms."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def page_figures(reader: Reader, department: Department, studies: int) -> list[Figure]:
    """Measure the list's pages."""
    after_change = statistics.median(_page_after_change(reader, department) for _ in range(5))
    again = statistics.median(timed_ms(lambda: reader.get("/list")) for _ in range(9))
    found = statistics.median(timed_ms(partial(reader.get, f"/list?q=p{number:06d}")) for number in range(9))
    sort = statistics.median(timed_ms(partial(reader.get, f"/list?sort={n}")) for n in ("patient", "study", "volume"))
    return [
        Figure(f"first page of {studies} open studies, just after a change", after_change, "ms", 200),
        Figure(f"first page of {studies} open studies, without a change", again, "ms", 200),
        Figure("a search not made before", found, "ms", 200),
        Figure("a sort not made before", sort, "ms", 200),
    ]


def _page_after_change(reader: Reader, department: Department) -> float:
    department.queue("Change^Before")
    return timed_ms(lambda: reader.get("/list"))


def preview_figures(reader: Reader, study_id: int) -> list[Figure]:
    """Measure pictures of a series that no one has looked at yet, the first and then all in turn."""
    slices = f"/studies/{study_id}/slices/{{}}.jpg"
    first = timed_ms(lambda: reader.get(slices.format(0)))
    all_ms = timed_ms(lambda: [reader.get(slices.format(index)) for index in range(SLICES)])
    return [
        Figure("first picture of a study of 40 x 512 x 512", first, "ms", 300),
        Figure("scrolling through it", SLICES / all_ms * 1000, "images/s", 30, at_least=True),
    ]


def stream_figures(reader: Reader, department: Department, lists: int) -> list[Figure]:
    """Open lists, make one change, and wait until it stands on all of them."""
    waiting = department.queue("Change^One", stat=True)  # its flag comes to the top of the first page
    heard: list[float] = []
    sizes: list[int] = []
    ready, threads = threading.Barrier(lists + 1), []
    for _ in range(lists):
        thread = threading.Thread(
            target=_listen, args=(reader.stream(), waiting.study_id, ready, heard, sizes), daemon=True
        )
        thread.start()
        threads.append(thread)
    ready.wait(timeout=120)
    time.sleep(2)  # the lists are quiet
    changed = time.perf_counter()
    department.find(waiting, flagged=True)
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
    assert len(heard) == lists, f"{len(heard)} of {lists} lists heard of the change"
    took = sorted((at - changed) * 1000 for at in heard)
    return [
        Figure(f"a change reaches the first of {lists} open lists", took[0], "ms", 1000),
        Figure(f"a change reaches all of {lists} open lists", took[-1], "ms", 1000),
        Figure("what one changed row costs a list", statistics.median(sizes) / 1024, "KiB", 16),
    ]


def _listen(
    answer: http.client.HTTPResponse, study_id: int, ready: threading.Barrier, heard: list[float], sizes: list[int]
) -> None:
    # One thread a list, as a browser is; an error in one is seen by the count of those that heard.
    first = True
    while line := answer.readline():
        if not line.startswith(b'data: {"version'):
            continue
        if first:
            first = False
            ready.wait(timeout=120)
            continue
        page = json.loads(line[6:])
        if "Flagged" in page["rows"].get(str(study_id), ""):
            heard.append(time.perf_counter())
            sizes.append(len(line))
            answer.close()
            return


def show(figures: list[Figure]) -> int:
    """Print the figures; gives how many do not hold."""
    table = Table("figure", "measured", "bound", "")
    for figure in figures:
        sign = "at least" if figure.at_least else "at most"
        table.add_row(
            figure.name,
            f"{figure.value:.1f} {figure.unit}",
            f"{sign} {figure.bound:g}",
            "holds" if figure.holds else "FAILS",
        )
    Console().print(table)
    return sum(not figure.holds for figure in figures)


def main() -> int:
    """Fill a ledger, serve it, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--lists", type=int, default=200)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        started = time.perf_counter()
        department = fill(folder, options.studies)
        study_id = whole_study(department)
        Users(department.ledger).add(
            "reader", role="radiologist", password_hash=hash_password(PASSWORD), now=time.time()
        )
        Console(stderr=True).print(
            f"{options.studies} studies put into the ledger in {time.perf_counter() - started:.0f} s"
        )
        with serving(folder, options.lists) as address:
            reader = Reader(address)
            figures = [
                *page_figures(reader, department, options.studies),
                *preview_figures(reader, study_id),
                *stream_figures(reader, department, options.lists),
            ]
        department.ledger.close()
    return show(figures)


if __name__ == "__main__":
    sys.exit(main())
