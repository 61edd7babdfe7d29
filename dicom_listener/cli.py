"""The commands of the C-STORE port: listen, send, echo."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from dicom_listener.checks import Check, Grade
from dicom_listener.listener import Listener
from dicom_listener.peer import Peer, PeerUnreachable, own_port
from dicom_listener.self_check import has_fault, self_check
from dicom_listener.sending import Sent, find_files, send_files, verify
from dicom_listener.tls import client_tls
from triage import logs
from triage.errors import ConfigError, StoreError
from triage.settings import load_settings
from triage.stop_signal import StopSignal

SHOWN = 10  # refused files that are named
REFUSALS = {
    0xA7: "out of resources: send it again later",
    0xA9: "the data set does not match its SOP class, or lacks a UID",
    0xC0: "the data set cannot be understood",
    0x01: "the service is refused",
}
FAILED = 1
USAGE = 2
PEM_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def security_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of TLS and of user identity towards a peer."""
    options = [
        click.option(
            "--tls-ca", type=PEM_FILE, help="Speak TLS; the peer's certificate must be, or be signed by, this."
        ),
        click.option("--tls-certificate", type=PEM_FILE, help="Ours, with its key, if the peer asks for one."),
        click.option("--tls-name", default="", help="Name in the peer's certificate. Default: the host."),
        click.option("--username", default="", help="User to show (user identity negotiation). Default: none."),
        click.option("--ask-passcode", is_flag=True, help="Ask for a passcode to show with it."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("listen")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings, a TOML file.")
@click.option("--check", is_flag=True, help="Try ports, disk, ledger and certificates instead; exit code 1 on a fault.")
def listen(config: Path | None, check: bool) -> None:
    """Receive images by C-STORE until SIGTERM or Ctrl-C.

    One line on stdout says that the port is open: {"dicom_port": 11112}.

    Example: ich-triage listen --config triage.toml
    """
    try:
        settings = load_settings(config)
        logs.configure(settings.log, process="listener")
        if check:
            raise SystemExit(_show(self_check(settings)))
        listener = Listener(settings)
        stopping = StopSignal.on_termination()
        gc.freeze()  # what was loaded stays: to look through it again and again holds everybody up for 70 ms each time
        listener.start()
    except ConfigError as error:
        raise _failure(error, USAGE) from error
    except (OSError, StoreError) as error:
        raise _failure(error, FAILED) from error
    ports = {"dicom_port": listener.port, "metrics_port": listener.metrics_port}
    click.echo(json.dumps({name: port for name, port in ports.items() if port is not None}))
    stopping.wait()
    listener.stop()


@click.command("send")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Host of the receiver.")
@click.option("--port", default=11112, show_default=True, type=click.IntRange(1, 65535), help="TCP port.")
@click.option("--called-aet", default="ICHTRIAGE", show_default=True, help="AE title of the receiver.")
@click.option("--calling-aet", default="ICHSEND", show_default=True, help="Our AE title.")
@security_options
@click.option("--associations", default=1, show_default=True, type=click.IntRange(1, 32), help="At once.")
def send(
    paths: tuple[Path, ...],
    host: str,
    port: int,
    called_aet: str,
    calling_aet: str,
    associations: int,
    **security: Any,
) -> None:
    """Send DICOM files, and folders of them, by C-STORE. Files that are no DICOM are counted and left out.

    Exit code 1 if any image was not accepted.

    Example: ich-triage send --port 11112 --associations 2 scans/
    """
    console = Console(stderr=True)
    files, others = find_files(paths)
    if others:
        console.print(f"{others} other files left out.")
    peer = _secured(Peer(host, port, called_aet, calling_aet), **security)
    bar = Progress(TextColumn("Sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
    try:
        with bar:
            task = bar.add_task("send", total=len(files))
            results = send_files(files, peer, associations=associations, on_sent=lambda _: bar.advance(task))
    except PeerUnreachable as error:
        raise _failure(error, FAILED) from error
    if not files:
        console.print("There is no DICOM file among them.")
    for sent in [each for each in results if not each.accepted][:SHOWN]:
        console.print(f"{sent.file.path}: {_meaning(sent.status)}", highlight=False, soft_wrap=True, markup=False)
    click.echo(_summary(results))
    if not files or not all(sent.accepted for sent in results):
        raise SystemExit(FAILED)


@click.command("echo")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("called_aet")
@click.option("--calling-aet", default="ICHSEND", show_default=True, help="Our AE title.")
@security_options
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path),
              help="Settings of a listener of ours: TLS as they say, and taken as a process of this host.")  # fmt: skip
@click.option("--timeout", "timeout_s", default=10.0, show_default=True, help="Seconds to wait.")
def echo(
    host: str,
    port: int,
    called_aet: str,
    calling_aet: str,
    config: Path | None,
    timeout_s: float,
    **security: Any,
) -> None:
    """Ask a DICOM peer whether it is there, by C-ECHO.

    Example: ich-triage echo 127.0.0.1 11112 ICHTRIAGE
    """
    try:
        peer = _secured(Peer(host, port, called_aet, calling_aet), **security)
        if config is not None:
            ours = own_port(load_settings(config), calling_aet)
            peer = replace(ours, host=host, port=port, called_ae_title=called_aet)
        status = verify(peer, timeout_s=timeout_s)
    except ConfigError as error:
        raise _failure(error, USAGE) from error
    except PeerUnreachable as error:
        raise _failure(error, FAILED) from error
    click.echo(f"{called_aet} answers: 0x{status:04X}{'' if status else ', Success'}")
    if status:
        raise SystemExit(FAILED)


def _secured(
    peer: Peer, *, tls_ca: Path | None, tls_certificate: Path | None, tls_name: str, username: str, ask_passcode: bool
) -> Peer:
    """Give a peer with TLS and user as the options say; ends the command where they do not fit."""
    if tls_certificate is not None and tls_ca is None:
        raise click.UsageError("--tls-certificate needs --tls-ca.")
    if ask_passcode and not username:
        raise click.UsageError("--ask-passcode needs --username.")
    try:
        tls = client_tls(tls_ca, tls_certificate, None, server_name=tls_name or peer.host) if tls_ca else None
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    passcode = str(click.prompt("Passcode", hide_input=True, err=True)) if ask_passcode else ""
    return replace(peer, tls=tls, username=username.encode(), passcode=passcode.encode())


def _show(checks: list[Check]) -> int:
    """Print what was tried; give the exit code."""
    colours = {Grade.GOOD: "green", Grade.DOUBTFUL: "yellow", Grade.FAULT: "red"}
    table = Table("what", "", Column("found", overflow="fold"), Column("to do", overflow="fold"))
    for item in checks:
        table.add_row(escape(item.what), f"[{colours[item.grade]}]{item.grade.value}", escape(item.found),
                      escape(item.mend))  # fmt: skip
    Console().print(table)
    click.echo(_verdict(checks))
    return FAILED if has_fault(checks) else 0


def _verdict(checks: Sequence[Check]) -> str:
    faults, doubts = (sum(item.grade is grade for item in checks) for grade in (Grade.FAULT, Grade.DOUBTFUL))
    if faults:
        return f"{faults} fault{'s' * (faults > 1)}: a listener would not start, or would lose images."
    return f"No fault; {doubts} to look at." if doubts else "No fault."


def _summary(results: list[Sent]) -> str:
    """Say how many images were accepted, and what the others were answered."""
    accepted = sum(sent.accepted for sent in results)
    refused = Counter("no answer" if sent.status is None else f"0x{sent.status:04X}"
                      for sent in results if not sent.accepted)  # fmt: skip
    answers = "".join(f", {count} {status}" for status, count in sorted(refused.items()))
    return f"{accepted} of {len(results)} accepted{answers}"


def _meaning(status: int | None) -> str:
    """Say what an answer to C-STORE means (PS3.4 Table B.2-1, by the first byte; PS3.7 Annex C)."""
    if status is None:
        return "no answer, or no presentation context for it was accepted"
    return f"0x{status:04X}, {REFUSALS.get(status >> 8, 'see the conformance statement of the receiver')}"


def _failure(error: Exception, exit_code: int) -> SystemExit:
    """Say what is wrong and what to do, on stderr."""
    click.echo(str(error), err=True)
    return SystemExit(exit_code)
