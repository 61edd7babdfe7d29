"""Proof that no acknowledged image is lost: a sender against a listener that is killed and failed by a seeded schedule.

`python -m tests.dicom_listener.prove_intake --seeds 1000` (`make prove-intake`). Each seed plays a few rounds: a
listener in a process of its own, a fault drawn from `KINDS`, a sender that cuts associations, then the next round on
what is left. At the end every image that was answered 0x0000 is on disk byte for byte, in the ledger, and its study in
one state; no half-written file is visible; each row has its file and each file its row. A seed that fails fails again.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from blake3 import blake3
from pydicom.dataset import Dataset

from dicom_listener.disk import Bytes, Disk, Place, Writing
from dicom_listener.instance_store import INCOMING, INSTANCES
from dicom_listener.listener import Listener
from dicom_listener.part10 import split_file
from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import settings_for
from tests.dicom_listener.raw_peer import A_ABORT, A_ASSOCIATE_AC, RawPeer, p_data, pdu, store_rq
from triage.ledger import Ledger
from triage.ledger.studies import Studies
from triage.stop_signal import StopSignal
from triage.study import StudyState

SUCCESS = 0x0000
STEPS = ("begin", "finish", "rename", "sync_folder", "make_folder")
KINDS = ("kill before", "kill after", "kill inside", "error", "kill later", "none")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
PDV_BYTES = (16_000, 131_066)
START_S = 60.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    """What happens to the listener in one round."""

    kind: str
    step: str  # of the disk
    number: int  # at the how manieth of these steps, from 1
    times: int  # errors in a row
    after_s: float  # for "kill later", which hits the ledger's commits too
    error: int


class FaultyDisk(Disk):
    """The real disk, with one fault."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._count = 0
        self._lock = threading.Lock()

    def begin(self, path: Place, content: Bytes) -> Writing:
        def torn() -> None:  # what a disk that fills up, or a kill in the middle, leaves
            Path(path).write_bytes(content[: len(content) // 2])

        return self._step("begin", lambda: super(FaultyDisk, self).begin(path, content), halfway=torn)

    def finish(self, writing: Writing) -> None:
        unsynced = partial(self.abandon, writing)
        self._step("finish", lambda: super(FaultyDisk, self).finish(writing), halfway=unsynced)

    def rename(self, source: Place, target: Place) -> None:
        self._step("rename", lambda: super(FaultyDisk, self).rename(source, target))

    def sync_folder(self, folder: Place) -> None:
        self._step("sync_folder", lambda: super(FaultyDisk, self).sync_folder(folder))

    def make_folder(self, folder: Place) -> bool:
        return self._step("make_folder", lambda: super(FaultyDisk, self).make_folder(folder))

    def _step(self, step: str, act: Callable[[], Result], *, halfway: Callable[[], None] | None = None) -> Result:
        with self._lock:
            self._count += step == self._fault.step
            due = step == self._fault.step and 0 <= self._count - self._fault.number < self._fault.times
        if due and self._fault.kind == "kill before":
            _die()
        if due and self._fault.kind in ("error", "kill inside") and halfway is not None:
            halfway()
        if due and self._fault.kind == "kill inside":
            _die()
        if due and self._fault.kind == "error":
            raise OSError(self._fault.error, os.strerror(self._fault.error))
        result = act()
        if due and self._fault.kind == "kill after":
            _die()
        return result


def prove(seed: int) -> tuple[int, int]:
    """Play one seed; give how many images were acknowledged and how many pushed.

    Raises:
        AssertionError: an acknowledged image is lost, or something else is not as promised.
    """
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="prove-intake-"))
    acknowledged: dict[str, Dataset] = {}
    pushed = 0
    try:
        studies = [ct_series(slices=6, rows=size, columns=size) for size in (16, 256)]  # 256: a PDU of 128 KiB each
        for _ in range(draw.randint(1, 3)):
            with _listening(folder, _draw_fault(draw)) as port:
                for series in studies:
                    pushed += _push(port, series, draw, acknowledged)
        with _listening(folder, Fault("none", "", 0, 0, 0.0, 0)):
            pass  # a last clean start, which recovers
        _check(folder, acknowledged)
    finally:
        shutil.rmtree(folder)
    return len(acknowledged), pushed


def _draw_fault(draw: random.Random) -> Fault:
    return Fault(
        kind=draw.choice(KINDS),
        step=draw.choice(STEPS),
        number=draw.randint(1, 14),
        times=draw.choice((1, 1, 3, 100)),
        after_s=draw.uniform(0.0, 0.15),
        error=draw.choice(ERRORS),
    )


@contextmanager
def _listening(folder: Path, fault: Fault) -> Iterator[int]:
    """Run a listener in a forked process with a fault; give its port, 0 if it died at its start."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _listen(folder, fault, writing)
    os.close(writing)
    with os.fdopen(reading) as ready:
        line = ready.readline()
    try:
        yield int(line or 0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _reap(pid)


def _listen(folder: Path, fault: Fault, writing: int) -> None:
    """Be the listener's process; never returns."""
    stopping = StopSignal.on_termination()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        listener = Listener(settings_for(folder, settle_s=0.05), disk=FaultyDisk(fault))
        listener.start()
        os.write(writing, f"{listener.port}\n".encode())
        if fault.kind == "kill later":
            threading.Timer(fault.after_s, _die).start()
        stopping.wait()
        listener.stop()
    except OSError:  # the fault hit the start
        os._exit(1)
    os._exit(0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _reap(pid: int) -> None:
    deadline = time.monotonic() + START_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the listener did not end")
        time.sleep(0.005)


def _push(port: int, series: Sequence[Dataset], draw: random.Random, acknowledged: dict[str, Dataset]) -> int:
    """Push a study, perhaps cut off in the middle; note what was acknowledged, give how many were pushed."""
    cut_at = draw.choice((None, None, draw.randrange(len(series))))
    pushed = 0
    try:
        with RawPeer(port) as peer:
            if peer.associate() != A_ASSOCIATE_AC:
                return pushed
            for index, ds in enumerate(series):
                if index == cut_at:
                    _cut(peer, ds, draw)
                    return pushed
                pushed += 1
                if peer.store(encoded(ds), ds.SOPInstanceUID, pdv_bytes=draw.choice(PDV_BYTES)) == SUCCESS:
                    acknowledged[ds.SOPInstanceUID] = ds
            peer.release()
    except (OSError, AssertionError):  # the listener is gone
        return pushed
    return pushed


def _cut(peer: RawPeer, ds: Dataset, draw: random.Random) -> None:
    """End an association in the middle of an image: between two PDUs, by an abort there, or inside of one."""
    data = encoded(ds)
    begun = p_data(1, 3, store_rq(ds.SOPInstanceUID)) + p_data(1, 0, data[: draw.randrange(1, len(data))])
    ends = draw.choice(("between", "abort", "inside"))
    peer.send(begun[: draw.randrange(1, len(begun))] if ends == "inside" else begun)
    if ends == "abort":
        peer.send(pdu(A_ABORT, bytes(4)))


def _check(folder: Path, acknowledged: dict[str, Dataset]) -> None:
    ledger = Ledger(folder / "ledger.sqlite")
    try:
        studies = Studies(ledger)
        rows = {
            instance.sop_instance_uid: instance
            for study in studies.all()
            for instance in studies.instances_of(study.study_instance_uid)
        }
        for uid, ds in acknowledged.items():
            assert uid in rows, "an acknowledged image has no row"
            _, data = split_file((folder / rows[uid].path).read_bytes())
            assert bytes(data) == encoded(ds), "an acknowledged image has other bytes"
            study = studies.by_uid(ds.StudyInstanceUID)
            assert study is not None
            assert study.state in (StudyState.RECEIVING, StudyState.QUEUED), "a study is in no state"
        files = {path for path in (folder / INSTANCES).rglob("*") if path.is_file()}
        assert files == {folder / instance.path for instance in rows.values()}, "files and rows differ"
        for instance in rows.values():
            _, data = split_file((folder / instance.path).read_bytes())
            assert blake3(data).hexdigest() == instance.blake3, "a half-written file is visible"
        assert not list((folder / INCOMING).iterdir()), "leftovers were not removed"
    finally:
        ledger.close()


def main() -> int:
    """Play the seeds; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed, to repeat one that failed")
    options = parser.parse_args()
    failed, acknowledged, pushed = [], 0, 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            counts = prove(seed)
        except AssertionError as error:
            failed.append(seed)
            print(f"seed {seed}: {error}", file=sys.stderr)
            continue
        acknowledged, pushed = acknowledged + counts[0], pushed + counts[1]
    print(f"{options.seeds} seeds, {pushed} images pushed, {acknowledged} acknowledged, {len(failed)} seeds failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
