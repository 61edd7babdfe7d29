"""What a sender was told Success of is on disk and in the ledger, whatever happens next."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_listener.disk import Bytes, Disk, Place, Writing
from dicom_listener.part10 import split_file
from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import SUCCESS, ListenProcess, association, ledger_of, push, queued, running
from tests.dicom_listener.raw_scu import store


class FailingDisk(Disk):
    """A disk on which one kind of step fails from a given time on."""

    def __init__(self, step: str, error: int, *, after: int) -> None:
        self.step, self.error, self.after = step, error, after
        self.lock = threading.Lock()

    def _maybe_fail(self, step: str) -> None:
        with self.lock:
            if step == self.step:
                self.after -= 1
                if self.after < 0:
                    raise OSError(self.error, os.strerror(self.error))

    def begin(self, path: Place, content: Bytes) -> Writing:
        if self.step == "begin" and self.after <= 0:
            Path(path).write_bytes(bytes(content[:1000]))  # a full disk leaves a torn file behind
        self._maybe_fail("begin")
        return super().begin(path, content)

    def finish(self, writing: Writing) -> None:
        try:
            self._maybe_fail("finish")
        except OSError:
            self.abandon(writing)
            raise
        super().finish(writing)

    def rename(self, source: Place, target: Place) -> None:
        self._maybe_fail("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Place) -> None:
        self._maybe_fail("sync_folder")
        super().sync_folder(folder)

    def free_bytes(self, folder: Place) -> int:
        return 10_000_000 if self.step == "low" else super().free_bytes(folder)


@pytest.mark.parametrize("step", ["begin", "finish", "rename", "sync_folder"])
def test_disk_that_fails_gets_the_sender_out_of_resources(tmp_path: Path, step: str) -> None:
    series = ct_series(slices=12)
    disk = FailingDisk(step, errno.ENOSPC, after=5)
    with running(tmp_path, disk=disk) as listener:
        statuses = push(listener.port, series)
        disk.step = "none"  # there is room again
        resent = push(listener.port, series)

        assert set(statuses) == {SUCCESS, 0xA700}
        assert resent == [SUCCESS] * 12
        assert listener.studies.instance_count() == 12
        assert listener.files("incoming") == []
        assert len(listener.files()) == 12
        _assert_all_kept(tmp_path, series)


def test_images_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    series = ct_series(slices=2)
    disk = FailingDisk("low", errno.ENOSPC, after=0)
    with running(tmp_path, disk=disk, min_free_bytes=10_000_001) as listener:
        refused = push(listener.port, series)
        disk.step = "none"
        accepted = push(listener.port, series)

    assert refused == [0xA700, 0xA700]
    assert accepted == [SUCCESS, SUCCESS]


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 6 MB or a little more, really full when it is full."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "tmpfs":
        how = ["-t", "tmpfs", "-o", "size=6m", "tmpfs"]
    else:  # writes past the page cache, in the background
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("cannot make an ext4: e2fsprogs is missing")
        image = tmp_path / "ext4"
        image.write_bytes(bytes(10_000_000))
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
        how = ["-o", "loop", str(image)]
    mounted = subprocess.run(["mount", *how, str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_loses_nothing_and_receiving_resumes(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    series = ct_series(slices=20, rows=256, columns=256)  # 131 kB each
    process = ListenProcess(small_disk / "var").start()
    ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 1_500_000))

    statuses = push(process.port, series)
    ballast.unlink()
    resent = push(process.port, series)
    code = process.end()

    assert statuses.count(SUCCESS) >= 1
    assert set(statuses) == {SUCCESS, 0xA700}
    assert resent == [SUCCESS] * 20
    assert code == 0
    _assert_all_kept(small_disk / "var", series)
    assert list((small_disk / "var" / "incoming").iterdir()) == []


def test_killed_listener_keeps_every_image_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[Dataset] = []
    process = ListenProcess(tmp_path)
    for kill_after in (3, 11, 17):
        process.start()
        series = ct_series(slices=24)
        killer = threading.Thread(target=_kill_after, args=(process, acknowledged, len(acknowledged) + kill_after))
        killer.start()
        _push_while_it_lives(process.port, series, acknowledged)
        killer.join()
        (tmp_path / "incoming" / "torn.part").write_bytes(b"half an image")

    process.start()

    assert process.end() == 0
    assert len(acknowledged) >= 31
    assert list((tmp_path / "incoming").iterdir()) == []
    _assert_all_kept(tmp_path, acknowledged)


def test_file_without_row_is_registered_at_start(tmp_path: Path) -> None:
    series = ct_series(slices=2)
    with running(tmp_path) as listener:
        push(listener.port, series)
    (tmp_path / "ledger.sqlite").unlink()  # as if the listener had been killed between rename and commit

    with running(tmp_path) as listener:
        assert listener.studies.instance_count() == 2
        study = queued(listener, series[0].StudyInstanceUID)
        assert study.calling_ae_title == "PACS"
    _assert_all_kept(tmp_path, series)


def test_torn_file_under_a_final_name_is_quarantined_at_start(tmp_path: Path) -> None:
    [ct] = ct_series(slices=1)
    with running(tmp_path) as listener:
        push(listener.port, [ct])
        [file] = listener.files()
    (tmp_path / "ledger.sqlite").unlink()
    file.write_bytes(file.read_bytes()[:-100])

    with running(tmp_path) as listener:
        assert listener.studies.instance_count() == 0
        assert listener.studies.quarantined_count() == 1
        assert listener.files() == []


def test_file_that_lost_its_name_in_a_power_cut_gets_it_back(tmp_path: Path) -> None:
    series = ct_series(slices=2)
    with running(tmp_path) as listener:
        push(listener.port, series)
        [lost, _] = listener.files()
    lost.rename(tmp_path / "incoming" / "1-1.part")
    (tmp_path / "incoming" / "1-2.part").write_bytes(b"torn")

    with running(tmp_path) as listener:
        assert listener.files("incoming") == []
    _assert_all_kept(tmp_path, series)


def test_second_listener_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    process = ListenProcess(tmp_path).start()
    command = [process.process.args[0], *process.process.args[1:]]  # type: ignore[index, misc]

    second = subprocess.run(command, env=process.environment, capture_output=True, text=True, timeout=30)

    assert second.returncode == 2
    assert "Another listener uses the storage folder" in second.stderr
    assert process.end(signal.SIGINT) == 0


def test_25_seeded_schedules_of_kills_and_faults_lose_nothing() -> None:
    """`make prove-intake` plays 1,000."""
    command = [sys.executable, "-m", "tests.dicom_listener.prove_intake"]
    halves = [  # at once, as each mostly waits for listeners to start and to end
        subprocess.Popen([*command, "--first", first, "--seeds", seeds], stdout=subprocess.PIPE, text=True)
        for first, seeds in (("0", "13"), ("13", "12"))
    ]

    said = [half.communicate(timeout=280)[0] for half in halves]

    assert [half.returncode for half in halves] == [0, 0], said
    assert all("0 seeds failed" in words for words in said)


def _kill_after(process: ListenProcess, acknowledged: list[Dataset], count: int) -> None:
    while len(acknowledged) < count and process.process.poll() is None:
        pass
    process.end(signal.SIGKILL)


def _push_while_it_lives(port: int, series: list[Dataset], acknowledged: list[Dataset]) -> None:
    with association(port, series) as established:
        for ds in series:
            try:
                status = store(established, encoded(ds), sop_instance_uid=ds.SOPInstanceUID)
            except (AssertionError, RuntimeError):
                return
            if status == SUCCESS:
                acknowledged.append(ds)


def _assert_all_kept(folder: Path, datasets: Sequence[Dataset]) -> None:
    """Each data set is on disk byte for byte, and its row says where."""
    with ledger_of(folder) as studies:
        for ds in datasets:
            rows = {item.sop_instance_uid: item for item in studies.instances_of(ds.StudyInstanceUID)}
            _, data = split_file((folder / rows[ds.SOPInstanceUID].path).read_bytes())
            assert bytes(data) == encoded(ds)
