"""All four processes on this machine's loopback: what the demo, the benchmarks and the end-to-end tests run.

Each process is the command that a site runs, with its own log; ports that are taken are replaced by free ones.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from triage.errors import ConfigError, TriageError

HOST = "127.0.0.1"
STOP_S = 15.0  # then SIGKILL: a worker may be in the middle of a study
MODELS_FOLDER = Path(__file__).resolve().parent / "models"
# Messages of 16 MB and more page-fault anew each time unless malloc keeps its pages.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


class ProcessEnded(TriageError):
    """A process of the stack ended, or did not say that it is ready."""


@dataclass(frozen=True)
class Ports:
    """Ports to ask for; 0 takes any free one."""

    dicom: int = 0
    grpc: int = 0
    rest: int = 0
    worklist: int = 0


DEFAULT_PORTS = Ports(dicom=11112, grpc=8500, rest=8501, worklist=8080)


@dataclass
class Part:
    """One running process of the stack."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    ready: dict[str, int] = field(default_factory=dict)
    said: threading.Event = field(default_factory=threading.Event)


class LocalStack:
    """Listener, worker, model server and worklist over one storage folder, stopped together.

    Args:
        folder: for the ledger, images and logs; made if absent.
        ports: to ask for; those taken are replaced by free ones.
        models_folder: TF Serving's model repository.
        toml: further settings, by section, that go into the stack's configuration file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ports: Ports | None = None,
        models_folder: Path = MODELS_FOLDER,
        toml: dict[str, dict[str, object]] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.config = self.folder / "triage.toml"
        wanted = ports or Ports()
        self.ports = Ports(*(_free_or_any(getattr(wanted, name)) for name in ("dicom", "grpc", "rest", "worklist")))
        self._models_folder = models_folder.resolve()
        self._toml = toml or {}
        self._parts: dict[str, Part] = {}

    def __enter__(self) -> LocalStack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Write the configuration and start all four; returns at once, `wait_ready` waits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(_toml_text(self._sections()), encoding="utf-8")
        for name in ("serve", "listen", "work", "worklist"):
            self.start_part(name)

    def start_part(self, name: str) -> None:
        """Start one process by its command: "serve", "listen", "work" or "worklist"."""
        log = self.folder / f"{name}.log"
        environment = {**os.environ, **MALLOC, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                [*_ended_with_us(), sys.executable, "-m", "ich_triage", name, "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=Path(__file__).resolve().parent,
                text=True,
                start_new_session=True,  # a Ctrl-C at the terminal reaches us alone, and we stop them in order
            )
        part = Part(name, process, log)
        self._parts[name] = part
        threading.Thread(target=_read_ready_line, args=(part,), daemon=True).start()

    def wait_ready(self, name: str, timeout_s: float = 90.0) -> dict[str, int]:
        """Wait for the line of JSON in which a process names its ports.

        Raises:
            ProcessEnded: it ended or said nothing in time; its last log lines are in the message.
        """
        part = self._parts[name]
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if part.said.wait(0.05) and part.ready:
                return part.ready
            if part.process.poll() is not None:
                break
        code = part.process.poll()
        state = "said nothing" if code is None else f"ended with exit code {code}"
        raise ProcessEnded(f"`ich-triage {name}` {state}. Its log ends:\n{_tail(part.log)}")

    def stop_part(self, name: str, *, kill: bool = False) -> None:
        """Stop one process: SIGTERM and a wait, or SIGKILL."""
        part = self._parts.pop(name, None)
        if part is None:
            return
        if kill:
            part.process.kill()
        else:
            part.process.terminate()
        _wait_or_kill(part.process, STOP_S)

    def stop(self) -> None:
        """Stop all processes, all at once; none is left behind."""
        for part in self._parts.values():
            part.process.terminate()
        deadline = time.monotonic() + STOP_S
        for part in self._parts.values():
            _wait_or_kill(part.process, max(0.1, deadline - time.monotonic()))
        self._parts.clear()

    def ended(self) -> list[str]:
        """Name the processes that have ended by themselves."""
        return [name for name, part in self._parts.items() if part.process.poll() is not None]

    def log_tail(self, name: str) -> str:
        """Give the last lines of one process's log."""
        return _tail(self.folder / f"{name}.log")

    def _sections(self) -> dict[str, dict[str, object]]:
        sections: dict[str, dict[str, object]] = {
            "storage": {"folder": str(self.folder)},
            "listener": {"host": HOST, "port": self.ports.dicom},
            "server": {
                "host": HOST,
                "port": self.ports.grpc,
                "rest_port": self.ports.rest,
                "models_folder": str(self._models_folder),
            },
            "worker": {"endpoint": f"{HOST}:{self.ports.grpc}"},
            "worklist": {"host": HOST, "port": self.ports.worklist},
        }
        for name, values in self._toml.items():
            sections.setdefault(name, {}).update(values)
        return sections


def _free_or_any(port: int) -> int:
    """Give `port` if it can be bound on loopback, else a free one."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError(f"No free port on {HOST}: close programs that hold them, and try again.")


def _ended_with_us() -> list[str]:
    """Give the prefix that ends a child when its parent is killed, where util-linux has it."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _read_ready_line(part: Part) -> None:
    assert part.process.stdout is not None  # noqa: S101 - Popen was given a pipe
    for line in part.process.stdout:
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(said, dict) and not part.ready:
            part.ready.update({name: port for name, port in said.items() if isinstance(port, int)})
            part.said.set()


def _wait_or_kill(process: subprocess.Popen[str], timeout_s: float) -> None:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _tail(log: Path, lines: int = 12) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _toml_text(sections: dict[str, dict[str, object]]) -> str:
    """Write sections of plain values as TOML; JSON's strings, numbers and lists of them are TOML's too."""
    lines = []
    for name, values in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)
