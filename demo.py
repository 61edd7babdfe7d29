"""`make demo`: starts everything on loopback, pushes head CTs through the real C-STORE port, shows the reading list."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from local_stack import DEFAULT_PORTS, HOST, LocalStack, ProcessEnded
from signed_in_reader import add_reader
from triage.errors import TriageError
from triage.ledger import Ledger
from triage.ledger.studies import Analysis, Studies
from triage.priority import Rank, reading_order
from triage.settings import load_settings
from triage.study import FINAL_STATES, REASON_TEXT, Study, StudyState

HERE = Path(__file__).resolve().parent
READER = "reader"
PHANTOMS = ("--count", "6", "--bleeds", "3", "--smallest-ml", "15", "--seed", "21")
console = Console()


@dataclass(frozen=True)
class Row:
    """A study with the analysis that counts."""

    study: Study
    analysis: Analysis | None


@click.command()
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of DICOM files to push instead of phantoms.",
)
@click.option("--once", is_flag=True, help="End by itself; exit 0 only if every study ended as it must.")
@click.option("--timeout", "timeout_s", default=240.0, show_default=True, help="Longest wait for all results, s.")
def demo(source: Path | None, once: bool, timeout_s: float) -> None:
    """Push head CTs through the real ports and show the reading list."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    folder = Path(tempfile.mkdtemp(prefix="ich-triage-demo-"))
    try:
        with LocalStack(folder / "storage", ports=DEFAULT_PORTS) as stack:
            ok = run(stack, source or write_phantoms(folder / "phantoms"), timeout_s=timeout_s)
            if not once:
                wait_for_interrupt(stack)
    except KeyboardInterrupt:
        console.print("\nStopped; every process has ended.")
        sys.exit(130 if once else 0)
    except TriageError as error:
        console.print(f"[bold red]{error}[/]")
        sys.exit(1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it may hold patients' images
    sys.exit(0 if ok else 1)


def run(stack: LocalStack, source: Path, *, timeout_s: float) -> bool:
    """Push `source`, wait for every study, show the list; tell whether all ended as they must."""
    with console.status("Starting the model server, listener, worker and worklist"):
        grpc_port = stack.wait_ready("serve")["grpc_port"]
        dicom_port = stack.wait_ready("listen")["dicom_port"]
        worklist_port = stack.wait_ready("worklist")["worklist_port"]
    console.print(f"C-STORE on {HOST}:{dicom_port} (ICHTRIAGE), models on {HOST}:{grpc_port}")
    sent = push(source, dicom_port)
    ledger = Ledger(load_settings(stack.config).storage.ledger_path)
    studies = Studies(ledger)
    wait_for_results(stack, studies, timeout_s=timeout_s)
    rows = [Row(study, studies.current_analysis(study.study_instance_uid)) for study in studies.all()]
    received = studies.instance_count()
    ledger.close()
    console.print(reading_list(rows))
    problems = check(rows, read_truth(source), sent_all=sent)
    for problem in problems:
        console.print(f"[bold red]{problem}[/]")
    console.print(f"{len(rows)} studies, {received} images received.")
    show_sign_in(stack, worklist_port)
    return not problems


def write_phantoms(folder: Path) -> Path:
    """Write a handful of synthetic heads, the bleeds not first."""
    with console.status("Writing phantoms"):
        _command("phantoms", str(folder), *PHANTOMS, quiet=True)
    return folder


def push(source: Path, dicom_port: int) -> bool:
    """Push a folder through the C-STORE port with a progress bar; False if an image was not accepted."""
    return _command("send", str(source), "--host", HOST, "--port", str(dicom_port)) == 0


def wait_for_results(stack: LocalStack, studies: Studies, *, timeout_s: float) -> None:
    """Wait until every study has ended.

    Raises:
        ProcessEnded: a process of the stack has ended.
    """
    deadline = time.monotonic() + timeout_s
    with console.status("Waiting for the results") as status:
        while time.monotonic() < deadline:
            counts = studies.counts()
            ended = sum(counts[state] for state in FINAL_STATES)
            status.update(f"Waiting for the results: {ended} of {sum(counts.values())} studies read")
            if ended == sum(counts.values()) > 0:
                return
            if gone := stack.ended():
                raise ProcessEnded(f"`ich-triage {gone[0]}` has ended. Its log ends:\n{stack.log_tail(gone[0])}")
            time.sleep(0.1)
    console.print(f"[bold red]Not all studies were read within {timeout_s:.0f} s.[/]")


def reading_list(rows: list[Row]) -> Table:
    """Draw the reading list: flagged first, then arrival."""
    table = Table(title="Reading list; wait: seconds from the last image to the result", title_justify="left")
    table.add_column("Patient", no_wrap=True)
    table.add_column("Result")
    for name in ("Images", "Probability", "mL", "Wait, s"):
        table.add_column(name, justify="right", no_wrap=True)
    by_id = {row.study.study_id: row for row in rows}
    for study_id in reading_order([_rank(row.study) for row in rows], now=time.time(), overtaking_cap_s=None):
        row = by_id[study_id]
        study = row.study
        finding = row.analysis.finding if row.analysis else None
        waited = "" if study.found_at is None else f"{study.found_at - study.last_image_at:.1f}"
        table.add_row(
            study.header.patient_name,
            _result(row),
            str(study.instance_count),
            f"{finding.probability:.2f}" if finding else "",
            f"{finding.volume_ml:.1f}" if finding and finding.flagged else "",
            waited,
            style="bold" if finding and finding.flagged else "",
        )
    return table


def check(rows: list[Row], truth: dict[str, bool] | None, *, sent_all: bool) -> list[str]:
    """Name everything that did not end as it must; nothing to name is success."""
    problems = [] if sent_all else ["Not every image was accepted."]
    for row in rows:
        study, name = row.study, row.study.header.patient_name
        if study.state not in FINAL_STATES:
            problems.append(f"{name} is still {study.state.value}.")
        elif truth is not None:
            flagged = bool(row.analysis and row.analysis.finding and row.analysis.finding.flagged)
            if truth.get(study.study_instance_uid) != flagged:
                problems.append(f"{name} was {'flagged' if flagged else 'not flagged'}; the phantom says otherwise.")
    if truth is not None and (missing := len(truth) - len(rows)):
        problems.append(f"{missing} of {len(truth)} studies never arrived.")
    return problems


def read_truth(source: Path) -> dict[str, bool] | None:
    """Read which phantoms bleed; None where the folder has no truth (real images)."""
    path = source / "truth.json"
    if not path.is_file():
        return None
    return {item["study_instance_uid"]: item["bleed"] for item in json.loads(path.read_text(encoding="utf-8"))}


def show_sign_in(stack: LocalStack, worklist_port: int) -> None:
    """Make a reader and print the worklist's address."""
    password = secrets.token_urlsafe(9)
    add_reader(stack, READER, password)
    console.print(f"Worklist: [bold]http://{HOST}:{worklist_port}/[/]  sign in as {READER} with {password}")


def wait_for_interrupt(stack: LocalStack) -> None:
    """Keep everything running until Ctrl-C."""
    console.print("Running until Ctrl-C.")
    while True:
        if gone := stack.ended():
            raise ProcessEnded(f"`ich-triage {gone[0]}` has ended. Its log ends:\n{stack.log_tail(gone[0])}")
        time.sleep(0.5)


def _rank(study: Study) -> Rank:
    return Rank(study.study_id, study.flag_raised_at is not None, study.priority == "stat", study.first_image_at)


def _result(row: Row) -> str:
    study = row.study
    if study.state is StudyState.ANALYSED and row.analysis and row.analysis.finding:
        return "[red]FLAGGED[/]" if row.analysis.finding.flagged else "not flagged"
    if study.state is StudyState.NOT_ANALYSED and study.reason:
        return f"not analysed: {REASON_TEXT[study.reason]} ({study.detail})"
    return f"{study.state.value}: {study.detail}" if study.detail else study.state.value


def _command(*arguments: str, quiet: bool = False) -> int:
    """Run one `ich-triage` command.

    Raises:
        ProcessEnded: it failed, and was to be quiet.
    """
    done = subprocess.run(
        [sys.executable, "-m", "ich_triage", *arguments],
        text=True,
        cwd=HERE,
        capture_output=quiet,
        check=False,
    )
    if quiet and done.returncode:
        raise ProcessEnded(f"`ich-triage {arguments[0]}` failed:\n{done.stderr}")
    return done.returncode


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    demo()
