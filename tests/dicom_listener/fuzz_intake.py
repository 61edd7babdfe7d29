"""Fuzzing of what comes in: 100,000 broken data sets, messages and conversations, and what must hold all the while.

`python -m tests.dicom_listener.fuzz_intake --inputs 100000` (`make fuzz-intake`). Most inputs go to the header reader
and to the message reader in this process, a share over loopback to a listener in a process of its own, which is asked
by C-ECHO meanwhile. Only refusals that are meant may come of them; memory and log stay bounded; no log line holds the
name that is planted in each data set. Input N of a seed is always the same: `--first N --inputs 1` plays it again.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicom_listener.disk import Disk
from dicom_listener.header import read_header
from dicom_listener.incoming_data import IncomingData
from dicom_listener.instance_store import InstanceStore
from dicom_listener.messages import MessageReader
from dicom_listener.pdu import VALUE_HEAD_BYTES, Command, ProtocolError, data_values, only_value
from dicom_listener.peer import Peer, PeerUnreachable
from dicom_listener.receiver import Answer
from dicom_listener.sending import verify
from dicom_listener.statuses import StoreStatus
from tests.dicom_listener.conftest import ListenProcess
from tests.dicom_listener.mutations import MARKER, conversation, data_sets, mutated
from tests.dicom_listener.raw_peer import RawPeer, p_data, store_rq
from triage.errors import UnreadableInstance

LOOPBACK_EVERY = 20  # each so many inputs go over a connection
PEERS = 8  # connections at once
SLOW_S = 1.0  # longer for one input of a few KB is a fault
ECHO_MAX_S = 1.0
GROWTH_MAX_MB = 60.0
OBJECT_MAX = 1_000_000
LINES_A_CONNECTION = 4  # opened and ended, and room for the bounded ones
PDU_HEAD_BYTES = 6


@dataclass
class Found:
    """What came of the inputs: how often each kind of outcome, one input of each, and the faults."""

    outcomes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)  # kind of input, syntax, input
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, number: int, kind: str, outcome: str, syntax: str, content: bytes, seconds: float) -> None:
        """Count one outcome; a crash and a slow one are faults."""
        outcome = f"{kind}: {without_values(outcome)}"
        with self.lock:
            self.outcomes[outcome] += 1
            if outcome not in self.examples or len(content) < len(self.examples[outcome][2]):
                self.examples[outcome] = (kind, syntax, content)
            if seconds > SLOW_S:
                self.faults.append(f"input {number} took {seconds:.1f} s ({outcome})")
            if "crash" in outcome:
                self.faults.append(f"input {number}: {outcome}")


def without_values(outcome: str) -> str:
    """Give an outcome without the numbers and tags in it, so that its kind can be counted."""
    return re.sub("[0-9]+", "#", re.sub(r"\([0-9A-F]{4},[0-9A-F]{4}\)", "(tag)", outcome))


class Store:
    """Takes data sets of a message reader as the receiver does, but for the ledger."""

    def __init__(self, folder: Path) -> None:
        self._store = InstanceStore(folder, Disk())
        self._store.prepare()
        self.refusals = 0

    def begin(self, command: Command, context_id: int) -> IncomingData | None:
        return IncomingData(self._store, b"", limit_bytes=OBJECT_MAX) if context_id == 1 else None

    def end(self, command: Command, context_id: int, data: IncomingData) -> Answer:
        try:
            read_header(data.head, "1.2.840.10008.1.2.1", total=data.size)
        except UnreadableInstance:
            return Answer(StoreStatus.CANNOT_UNDERSTAND)
        return Answer(StoreStatus.SUCCESS)

    def refused(self, answer: Answer) -> None:
        self.refusals += 1


def header_outcome(data: bytes, syntax: str) -> str:
    """Read a data set's header; say what came of it."""
    try:
        read_header(data, syntax)
    except UnreadableInstance as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever else comes is what is looked for
        return f"crash {type(error).__name__}"
    return "read"


def messages_outcome(traffic: bytes, store: Store) -> str:
    """Read P-DATA-TF PDUs in both ways that an association does; say what came of it."""
    by_values, straight = (read_messages(traffic, store, straight=way) for way in (False, True))
    return by_values if by_values == straight else f"crash: {by_values} by values, {straight} straight"


def read_messages(traffic: bytes, store: Store, *, straight: bool) -> str:
    answers: list[bytes] = []
    reader = MessageReader(
        store, send=answers.append, pass_on=lambda _: None, is_accepted=lambda number: number in (1, 3)
    )
    try:
        while traffic:
            length = int.from_bytes(traffic[2:PDU_HEAD_BYTES], "big")
            body, traffic = traffic[PDU_HEAD_BYTES : PDU_HEAD_BYTES + length], traffic[PDU_HEAD_BYTES + length :]
            if not (straight and has_read_straight(reader, body)):
                for value in data_values(memoryview(body)):
                    reader.read(value)
    except ProtocolError as error:
        return f"abort: {error}"
    except Exception as error:  # noqa: BLE001 - as above
        return f"crash {type(error).__name__}"
    finally:
        reader.close()
    return f"{len(answers)} answers"


def has_read_straight(reader: MessageReader, body: bytes) -> bool:
    head = only_value(memoryview(body)[:VALUE_HEAD_BYTES], len(body)) if len(body) >= VALUE_HEAD_BYTES else None
    place = reader.place_for(head) if head is not None else None
    if head is None or place is None:
        return False
    place[:] = body[VALUE_HEAD_BYTES:]
    reader.placed(head)
    return True


def play(numbers: Sequence[int], seed: int, found: Found, store: Store) -> None:
    """Play the inputs that stay in this process."""
    for number in numbers:
        draw = random.Random(f"{seed}-{number}")
        began = time.thread_time()
        if draw.random() < 0.5:
            syntax = draw.choice(sorted(data_sets()))
            content = mutated(data_sets()[syntax], draw)
            kind, outcome = "header", header_outcome(content, syntax)
        else:
            syntax, content = "", mutated(_messages(), draw)
            kind, outcome = "messages", messages_outcome(content, store)
        found.note(number, kind, outcome, syntax, content, time.thread_time() - began)


def _messages() -> bytes:
    data = data_sets()["1.2.840.10008.1.2.1"]
    one = p_data(1, 3, store_rq("1.2.3.4.5.6")) + p_data(1, 0, data[:300]) + p_data(1, 2, data[300:])
    return one + p_data(3, 3, store_rq("1.2.3")) + p_data(3, 2, data) + one


def converse(number: int, seed: int, port: int, found: Found) -> None:
    """Play one conversation over a connection, to its end."""
    request, rest = broken_conversation(random.Random(f"{seed}-{number}"))
    began = time.perf_counter()
    answers = []
    with suppress(OSError), RawPeer(port, timeout_s=30.0) as peer:
        with suppress(OSError):
            peer.send(request)
            if rest:
                answers.append(peer.receive()[0])
                peer.send(rest)
            peer.connection.shutdown(1)  # no more to come: the listener need not wait for the rest of a PDU
        while (kind := peer.receive()[0]) != 0:
            answers.append(kind)
    found.note(number, "connection", f"PDUs {answers}", "", request + rest, 0.0)
    if time.perf_counter() - began > 20.0:
        found.faults.append(f"connection {number} was still open after 20 s")


def broken_conversation(draw: random.Random) -> tuple[bytes, bytes]:
    """Give a broken request and nothing more, or what follows a good one, broken; at times all of it at once."""
    request, rest = conversation()
    if draw.random() < 0.3:
        return mutated(request, draw), b""
    if draw.random() < 0.1:
        return mutated(request + rest, draw), b""
    return request, mutated(rest, draw)


@dataclass
class Watch:
    """A listener's memory, and its answers to C-ECHO, while it is fuzzed."""

    process: ListenProcess
    slowest_echo_s: float = 0.0
    echoes: int = 0
    failed_echoes: int = 0
    start_mb: float = 0.0
    peak_mb: float = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Look, until told to stop."""
        peer = Peer("127.0.0.1", self.process.port, "ICHTRIAGE")
        while not stopping.wait(0.2):
            began = time.perf_counter()
            try:
                self.failed_echoes += verify(peer, timeout_s=10.0) != 0
            except PeerUnreachable:
                self.failed_echoes += 1
            self.slowest_echo_s = max(self.slowest_echo_s, time.perf_counter() - began)
            self.echoes += 1
            self.peak_mb = max(self.peak_mb, resident_mb(self.process.process.pid))


def resident_mb(pid: int) -> float:
    """Give the resident memory of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def fuzz_listener(numbers: Sequence[int], seed: int, folder: Path, found: Found, *, echo_max_s: float) -> str:
    """Play conversations against a listener; give what was measured."""
    log_path = folder / "listener.log"
    with log_path.open("wb") as log:
        limits = {"network_timeout_s": 5.0, "negotiation_timeout_s": 5.0, "max_associations": 64}
        process = ListenProcess(folder / "var", **limits)
        process.environment["ICH_TRIAGE_LOG__FORMAT"] = "json"
        process.start(stderr=log)
        with ThreadPoolExecutor(PEERS) as pool:
            warm_up, rest = numbers[: len(numbers) // 10], numbers[len(numbers) // 10 :]
            list(pool.map(lambda number: converse(number, seed, process.port, found), warm_up))
            watch = Watch(process, start_mb=resident_mb(process.process.pid))
            stopping = threading.Event()
            watcher = threading.Thread(target=watch.run, args=(stopping,))
            watcher.start()
            list(pool.map(lambda number: converse(number, seed, process.port, found), rest))
            stopping.set()
            watcher.join()
        end_mb = resident_mb(process.process.pid)
        code = process.end()
    lines = log_path.read_text().splitlines()
    found.faults += _faults_of(
        watch, end_mb, lines, code, connections=len(numbers) + watch.echoes, echo_max_s=echo_max_s
    )
    return (f"{len(numbers)} connections; {watch.echoes} C-ECHO, slowest {watch.slowest_echo_s:.2f} s; memory "
            f"{watch.start_mb:.0f} to {end_mb:.0f} MB, peak {watch.peak_mb:.0f}; {len(lines)} log lines")  # fmt: skip


def _faults_of(
    watch: Watch, end_mb: float, lines: Sequence[str], code: int, *, connections: int, echo_max_s: float
) -> list[str]:
    text = "\n".join(lines)
    told = [json.loads(line) for line in lines if line.startswith("{")]
    failed = [line for line in told if line["event"] == "association_failed"]
    # what pynetdicom's state machine does not take, as a request with an even context number, ends an association
    # like any other breach; a fault is what our own code raises
    failed = [line for line in failed if "StateMachine.do_action" not in line["exception"]]
    checks = {
        f"{watch.failed_echoes} C-ECHO were not answered": watch.failed_echoes > 0,
        f"a C-ECHO took {watch.slowest_echo_s:.2f} s": watch.slowest_echo_s > echo_max_s,
        f"memory grew from {watch.start_mb:.0f} to {end_mb:.0f} MB": end_mb - watch.start_mb > GROWTH_MAX_MB,
        f"{len(lines)} log lines for {connections} connections": len(lines) > LINES_A_CONNECTION * connections + 500,
        "the planted name is in the log": MARKER in text,
        "a UID of the data sets is in the log": "1.2.3.4.5" in text,
        f"{len(lines) - len(told)} log lines are no events": len(lines) > len(told),
        f"{len(failed)} associations failed by a fault of ours: {failed[:3]}": bool(failed),
        f"the listener ended with {code}": code != 0,
    }
    return [text for text, is_fault in checks.items() if is_fault]


def fuzz(inputs: int, *, first: int = 0, seed: int = 1, echo_max_s: float = ECHO_MAX_S) -> tuple[Found, str]:
    """Play so many inputs, from number `first` on; give what came of them, and what was measured of the listener."""
    found = Found()
    data_sets(), conversation()  # made once, before threads ask for them
    numbers = range(first, first + inputs)
    over_loopback = [number for number in numbers if number % LOOPBACK_EVERY == 0]
    with tempfile.TemporaryDirectory() as folder:
        measured = (
            fuzz_listener(over_loopback, seed, Path(folder), found, echo_max_s=echo_max_s) if over_loopback else ""
        )
        play([number for number in numbers if number % LOOPBACK_EVERY], seed, found, Store(Path(folder) / "store"))
    return found, measured


def packed(content: bytes) -> str:
    """Give an input as text."""
    return base64.b85encode(zlib.compress(content, 9)).decode("ascii")


def unpacked(text: str) -> bytes:
    """Give an input back from its text."""
    return zlib.decompress(base64.b85decode(text))


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz and report; 1 if a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the smallest input of each outcome there, JSON")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    found, measured = fuzz(arguments.inputs, first=arguments.first, seed=arguments.seed)
    for outcome, count in found.outcomes.most_common():
        print(f"{count:8} {outcome}")
    print(measured)
    print(f"{arguments.inputs} inputs in {time.monotonic() - began:.0f} s, {len(found.outcomes)} kinds of outcome")
    for fault in found.faults[:50]:
        print(f"FAULT: {fault}")
    if arguments.keep is not None:
        kept = [{"outcome": outcome, "kind": kind, "syntax": syntax, "input": packed(content)}
                for outcome, (kind, syntax, content) in sorted(found.examples.items())
                if kind != "connection"]  # fmt: skip
        arguments.keep.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
