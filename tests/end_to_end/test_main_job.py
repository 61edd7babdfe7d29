"""The main job: head CTs in by C-STORE, the bleed on top of a signed-in radiologist's list."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from signed_in_reader import SignedInReader, SignInRefused
from tests.end_to_end.conftest import Site
from triage.study import StudyState

pytestmark = pytest.mark.slow
A_ABORT = b"\x07"  # PS3.8 9.3.8


@pytest.fixture(scope="module")
def reader(site: Site) -> SignedInReader:
    return SignedInReader.of(site.stack, "night.shift")


def truth(phantoms: Path) -> dict[str, bool]:
    return {item["study_instance_uid"]: item["bleed"] for item in json.loads((phantoms / "truth.json").read_text())}


@pytest.mark.dcmtk
@pytest.mark.skipif(shutil.which("storescu") is None, reason="storescu of the Debian package dcmtk is not installed")
def test_pushed_bleed_is_flagged_and_stands_on_top_of_the_open_list(
    site: Site, phantoms: Path, reader: SignedInReader
) -> None:
    updates = reader.updates()
    before = next(updates)["flags"]  # the list as other tests left it

    for folder in sorted(path for path in phantoms.iterdir() if path.is_dir()):
        assert site.storescu(folder) == 0

    flagged = next(update for update in updates if update["flags"] > before)
    studies = {uid: site.wait_ended(uid) for uid in truth(phantoms)}
    [bleed] = [studies[uid] for uid, bleeds in truth(phantoms).items() if bleeds]
    [clear] = [studies[uid] for uid, bleeds in truth(phantoms).items() if not bleeds]
    assert flagged["order"].index(bleed.study_id) == before  # behind older flags only, before all others
    assert bleed.study_id in flagged["order"][: flagged["flags"]]
    assert bleed.flag_raised_at is not None
    assert (clear.state, clear.flag_raised_at) == (StudyState.ANALYSED, None)
    assert clear.first_image_at < bleed.first_image_at  # it came first, and is no longer on top
    assert bleed.completed_by == "geometry"


def test_received_is_shown(site: Site, reader: SignedInReader, phantoms: Path) -> None:
    shown = next(reader.updates())

    assert len(shown["order"]) == sum(site.studies.counts().values())


def test_wrong_password_gets_nobody_in(site: Site, reader: SignedInReader) -> None:
    port = site.stack.wait_ready("worklist")["worklist_port"]

    with pytest.raises(SignInRefused, match="401"):
        SignedInReader(port, "night.shift", "wrong")


def test_garbage_on_the_dicom_port_disturbs_nobody(site: Site, phantoms: Path) -> None:
    before = site.studies.instance_count()
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(4096), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        with socket.create_connection(("127.0.0.1", site.dicom_port), timeout=10) as peer:
            peer.sendall(rubbish)
            assert peer.recv(1) == A_ABORT

    assert site.push(phantoms) == 0
    assert site.studies.instance_count() >= before
