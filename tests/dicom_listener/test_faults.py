"""Broken and hostile peers: each is cut off or answered, memory stays bounded, and everybody else is served."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from pynetdicom import build_context
from structlog.testing import capture_logs

from dicom_listener import recurring as recurring_log
from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import SUCCESS, ListenProcess, Running, association, eventually, push, running
from tests.dicom_listener.fuzz_intake import Store, fuzz, header_outcome, messages_outcome, unpacked, without_values
from tests.dicom_listener.raw_peer import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_RELEASE_RP,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR,
    RawPeer,
    associate_rq,
    command_set,
    p_data,
    pdu,
    status_of,
    store_rq,
)

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(192)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One listener for all of these tests: what one peer does must not be felt by the next."""
    with running(tmp_path_factory.mktemp("faults"), network_timeout_s=1.5, negotiation_timeout_s=1.0) as it:
        yield it


@pytest.fixture(autouse=True)
def _still_serves(shared: Running) -> Iterator[None]:
    yield
    with association(shared.port, contexts=[build_context("1.2.840.10008.1.1")]) as echo:
        assert echo.send_c_echo().Status == SUCCESS
    assert shared.files("incoming") == []


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", TLS_HELLO, bytes(100), b"\xff" * 100, b"\x01\x00\x00\x00\x00\x04abcd"],
    ids=["HTTP", "TLS", "zeros", "ones", "association request of four bytes"],
)
def test_garbage_on_the_port_is_aborted(shared: Running, garbage: bytes) -> None:
    with RawPeer(shared.port) as peer:
        peer.send(garbage)
        kind, _ = peer.receive()
        assert kind in (A_ABORT, 0)
        assert peer.is_closed_within(3.0)


@pytest.mark.parametrize("kind", [1, 4, 5, 7], ids=["A-ASSOCIATE-RQ", "P-DATA", "A-RELEASE", "A-ABORT"])
def test_length_of_four_gigabytes_is_not_believed(shared: Running, kind: int) -> None:
    with RawPeer(shared.port) as peer:
        if kind != 1:
            assert peer.associate() == A_ASSOCIATE_AC
        peer.send(struct.pack(">BBL", kind, 0, 0xFFFFFFF0))
        assert peer.receive()[0] == A_ABORT
        assert peer.is_closed_within(3.0)


@pytest.mark.parametrize(
    "items",
    [
        b"",
        struct.pack(">LBB", 0, 1, 3),
        struct.pack(">LBB", 1, 1, 3),
        struct.pack(">LBB", 5000, 1, 3) + b"short",
        struct.pack(">LBB", 7, 1, 3) + b"12345" + b"\0\0\0",
        struct.pack(">LBB", 0xFFFFFFFF, 1, 3) + b"12345",
    ],
    ids=["none", "zero", "one", "beyond the PDU", "rest of three bytes", "4 GB"],
)
def test_presentation_data_values_that_do_not_add_up_are_aborted(shared: Running, items: bytes) -> None:
    _assert_aborted(shared, pdu(4, items))


def test_data_without_a_command_is_aborted(shared: Running) -> None:
    _assert_aborted(shared, p_data(1, 2, b"data"))


def test_command_inside_a_data_set_is_aborted(shared: Running) -> None:
    _assert_aborted(shared, p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, b"data") + p_data(1, 3, store_rq("1.2.4")))


def test_context_that_was_not_accepted_is_aborted(shared: Running) -> None:
    _assert_aborted(shared, p_data(77, 3, store_rq("1.2.3")))


def test_data_in_another_context_than_its_command_is_aborted(shared: Running) -> None:
    with RawPeer(shared.port) as peer:
        peer.associate([(CT_IMAGE_STORAGE, [EXPLICIT_VR]), (CT_IMAGE_STORAGE, [b"1.2.840.10008.1.2"])])
        peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(3, 2, b"data"))
        assert peer.receive()[0] == A_ABORT


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"\x08\x00\x00\x00\x04\x00\x00\x00",
        b"garbage!" * 3,
        command_set([(0x0100, b"\x99\x99"), (0x0800, b"\1\1")]),
    ],
    ids=["empty", "another group", "garbage", "unknown command"],
)
def test_command_set_that_is_none_is_aborted(shared: Running, command: bytes) -> None:
    _assert_aborted(shared, p_data(1, 3, command))


def test_command_without_end_is_aborted(shared: Running) -> None:
    _assert_aborted(shared, p_data(1, 1, bytes(16000)) * 5)


def test_store_without_data_set_is_answered(shared: Running) -> None:
    with RawPeer(shared.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq("1.2.3", has_data=False)))
        _, body = peer.receive()
        assert b"\x00\x09\x02\x00\x00\x00\x00\xc0" in body  # (0000,0900) 0xC000
        assert peer.release() == A_RELEASE_RP


def test_abort_and_close_in_mid_instance_leave_nothing_torn(shared: Running) -> None:
    [ct] = ct_series(slices=1)
    before = shared.files()
    for last_words in (pdu(A_ABORT, bytes(4)), b"", pdu(5, bytes(4))):
        with RawPeer(shared.port) as peer:
            peer.associate()
            peer.send(p_data(1, 3, store_rq(ct.SOPInstanceUID)) + p_data(1, 0, encoded(ct)[:5000]) + last_words)
    assert shared.files() == before


def test_one_byte_at_a_time_is_taken(shared: Running) -> None:
    [ct] = ct_series(slices=1, rows=4, columns=4)
    with RawPeer(shared.port) as peer:
        peer.associate()
        for byte in p_data(1, 3, store_rq(ct.SOPInstanceUID)) + p_data(1, 2, encoded(ct)):
            peer.send(bytes([byte]))
        _, response = peer.receive()
        assert status_of(response) == SUCCESS


def test_odd_and_tiny_fragments_are_put_together(shared: Running) -> None:
    [ct] = ct_series(slices=1, rows=8, columns=8)
    with RawPeer(shared.port) as peer:
        peer.associate()
        assert peer.store(encoded(ct), ct.SOPInstanceUID, pdv_bytes=7) == SUCCESS
        assert peer.release() == A_RELEASE_RP


def test_stall_in_the_middle_of_a_pdu_is_dropped(shared: Running) -> None:
    with RawPeer(shared.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, bytes(1000))[:500])
        assert peer.is_closed_within(6.0)


def test_silent_connection_and_silent_association_are_dropped(shared: Running) -> None:
    with RawPeer(shared.port) as silent, RawPeer(shared.port) as associated:
        associated.associate()
        assert silent.is_closed_within(6.0)
        assert associated.is_closed_within(6.0)


def test_negotiation_of_128_contexts_and_none_acceptable_is_answered(shared: Running) -> None:
    printing = [(b"1.2.840.10008.5.1.1.9", [EXPLICIT_VR])] * 128
    with RawPeer(shared.port) as peer:
        assert peer.associate(printing) == A_ASSOCIATE_AC
        results = re.findall(rb"\x21\x00..(.)\x00(.)\x00", peer.answer, re.DOTALL)
        assert len(results) == 128
        assert {result for _, result in results} == {b"\x03"}  # abstract syntax not supported
        assert peer.release() == A_RELEASE_RP


@pytest.mark.parametrize(("pdv_bytes", "count"), [(16_000, 19), (100_000, 4)])
def test_object_beyond_the_limit_is_cut_off(tmp_path: Path, pdv_bytes: int, count: int) -> None:
    with running(tmp_path, max_object_bytes=300_000) as listener, RawPeer(listener.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, bytes(pdv_bytes)) * count)
        assert peer.receive()[0] == A_ABORT
        assert eventually(lambda: listener.files("incoming") == [])


def test_large_object_goes_to_disk_as_it_comes(tmp_path: Path) -> None:
    [ct] = ct_series(slices=1, rows=64, columns=64)
    ct.PixelData = bytes(40_000_000)
    with running(tmp_path) as listener:
        assert push(listener.port, [ct]) == [SUCCESS]
        [file] = listener.files()
        assert file.read_bytes().endswith(encoded(ct))
        [instance] = listener.studies.instances_of(ct.StudyInstanceUID)
        assert instance.size_bytes == len(encoded(ct))
        assert listener.files("incoming") == []


def test_hostile_peers_lock_nobody_out_and_fill_no_memory(tmp_path: Path) -> None:
    """200 that say nothing, 200 with half a request, 32 that stall within an image, and an image without end."""
    series = ct_series(slices=40)
    limits = {"negotiation_timeout_s": 4.0, "network_timeout_s": 4.0, "max_object_bytes": 150_000_000}
    process = ListenProcess(tmp_path, **limits).start()
    half_an_image = p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, bytes(1000))[:500]
    with ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(process.port)) for _ in range(432)]
        for peer in peers[200:400]:
            peer.send(b"\x01\x00\x00\x00\x10\x00abc")
        for peer in peers[400:]:
            assert peer.associate() == A_ASSOCIATE_AC
            peer.send(half_an_image)
        began = time.monotonic()

        statuses = push(process.port, series)

        seconds = time.monotonic() - began
        assert statuses == [SUCCESS] * 40
        assert seconds < 10
        assert _is_cut_off_without_end(process.port)
        assert _peak_mb(process.process.pid) < 250
        assert all(peer.is_closed_within(15.0) for peer in peers)
    assert process.end() == 0
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("said", ["a request", "an image"])
def test_sender_of_a_byte_now_and_then_is_dropped(shared: Running, said: str) -> None:
    """A PDU has the network timeout in all, however often a byte of it comes."""
    with RawPeer(shared.port) as peer:
        content = associate_rq([(CT_IMAGE_STORAGE, [EXPLICIT_VR])])
        if said == "an image":
            assert peer.associate() == A_ASSOCIATE_AC
            content = p_data(1, 3, store_rq("1.2.3"))
        began = time.monotonic()
        with suppress(OSError):
            for byte in content:
                peer.send(bytes([byte]))
                if peer.is_closed_within(0.1):
                    break
        assert time.monotonic() - began < 6.0
        assert len(content) * 0.1 > 6.0  # or it would have been said in time


STATES = {
    "before a request": b"",
    "after a request": associate_rq([(CT_IMAGE_STORAGE, [EXPLICIT_VR])]),
    "in a command": p_data(1, 1, store_rq("1.2.3")[:20]),
    "between command and data": p_data(1, 3, store_rq("1.2.3")),
    "in data": p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, bytes(100)),
    "after a release": pdu(5, bytes(4)),
    "after an abort": pdu(A_ABORT, bytes(4)),
}
WORDS = {
    "request": associate_rq([(CT_IMAGE_STORAGE, [EXPLICIT_VR])]),
    "acceptance": pdu(2, bytes(68)),
    "rejection": pdu(3, bytes([0, 1, 1, 1])),
    "data": p_data(1, 2, b"data"),
    "release": pdu(5, bytes(4)),
    "answer to a release": pdu(6, bytes(4)),
    "abort": pdu(A_ABORT, bytes(4)),
    "nothing": b"",
}


def test_every_word_in_every_state_ends_cleanly(shared: Running) -> None:
    """56 connections at once: each PDU of PS3.8 in each state, and then no more from that peer."""
    with ExitStack() as stack:
        peers = {}
        for state, before in STATES.items():
            for word, content in WORDS.items():
                peer = stack.enter_context(RawPeer(shared.port))
                if state not in ("before a request", "after a request"):
                    assert peer.associate() == A_ASSOCIATE_AC
                with suppress(OSError):
                    peer.send(before)
                    peer.send(content)
                    peer.connection.shutdown(socket.SHUT_WR)
                peers[state, word] = peer
        left_open = [name for name, peer in peers.items() if not peer.is_closed_within(8.0)]
    assert left_open == []


def test_listener_ends_at_once_with_silent_and_half_said_peers(tmp_path: Path) -> None:
    process = ListenProcess(tmp_path).start()
    with RawPeer(process.port), RawPeer(process.port) as half, RawPeer(process.port) as associated:
        half.send(b"\x01\x00\x00\x00\x10\x00abc")
        assert associated.associate() == A_ASSOCIATE_AC
        began = time.monotonic()

        assert process.end() == 0

        assert time.monotonic() - began < 6.0
        assert associated.receive()[0] == A_ABORT


def test_many_associations_beyond_the_limit_are_rejected_for_the_time_being(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=3) as listener, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(listener.port)) for _ in range(4)]

        answers = [peer.associate() for peer in peers]

        assert answers == [A_ASSOCIATE_AC] * 3 + [3]
        assert tuple(peers[3].answer[1:4]) == (2, 3, 2)  # transient, presentation, local limit exceeded
        assert peers[0].release() == A_RELEASE_RP
        eventually(lambda: _is_accepted_now(listener.port))


def test_hostile_peer_cannot_flood_the_log(shared: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurring_log, "EACH_MINUTE", 3)
    with capture_logs() as lines:
        for _ in range(8):
            with RawPeer(shared.port) as peer:
                peer.send(b"\xff" * 10)
                assert peer.receive()[0] == A_ABORT
    assert len([line for line in lines if line["event"] == "protocol_error"]) <= 3


def test_data_before_the_answer_to_the_request_are_no_failure_of_ours(
    shared: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring_log, "EACH_MINUTE", 10**6)  # the tests before may have had this minute's lines
    request = associate_rq([(CT_IMAGE_STORAGE, [EXPLICIT_VR])])
    with capture_logs() as lines:
        with RawPeer(shared.port) as peer:
            peer.send(request + p_data(1, 3, store_rq("1.2.3")))
            kind = peer.receive()[0]
            if kind == A_ASSOCIATE_AC:  # the answer was quicker than the data
                peer.send(pdu(A_ABORT, bytes(4)))
        eventually(lambda: any(line["event"] == "association_aborted" for line in lines))

    assert kind in (A_ABORT, A_ASSOCIATE_AC)
    assert not [line for line in lines if line["event"] == "association_failed"]


def test_usual_events_are_bounded_too() -> None:
    now = [0.0]
    bounded = recurring_log.RecurringLog(each_minute=3, clock=lambda: now[0])
    with capture_logs() as lines:
        for _ in range(10):
            bounded.info("association_opened", association=1)
        now[0] += 61.0
        bounded.info("association_opened", association=2)

    assert [line["event"] for line in lines] == ["association_opened"] * 3 + [
        "log_lines_withheld",
        "association_opened",
    ]
    assert lines[3]["count"] == 7


KEPT = json.loads((Path(__file__).parent / "fuzzed_inputs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept["outcome"][:60])
def test_input_that_fuzzing_found_comes_to_the_same_end(tmp_path: Path, kept: dict[str, str]) -> None:
    """The smallest input of each outcome; made by `fuzz_intake --keep`."""
    content = unpacked(kept["input"])
    if kept["kind"] == "header":
        outcome = header_outcome(content, kept["syntax"])
    else:
        outcome = messages_outcome(content, Store(tmp_path))
    assert f"{kept['kind']}: {without_values(outcome)}" == kept["outcome"]


def test_fuzzed_intake_keeps_its_promises() -> None:
    found, measured = fuzz(2000, seed=2, echo_max_s=10.0)  # on whatever machine; `make fuzz-intake` asks for 1 s

    assert found.faults == [], measured
    assert found.outcomes.total() == 2000


def _is_cut_off_without_end(port: int) -> bool:
    """Whether a sender of an image that never ends is cut off; what it sends after the abort is read and forgotten."""
    with RawPeer(port) as peer:
        assert peer.associate() == A_ASSOCIATE_AC
        part = p_data(1, 0, bytes(1_000_000))
        try:
            peer.send(p_data(1, 3, store_rq("1.2.3")))
            for _ in range(20_000):  # 20 GB
                peer.send(part)
        except ConnectionError:
            return True
        return False


def _assert_aborted(shared: Running, content: bytes) -> None:
    with RawPeer(shared.port) as peer:
        assert peer.associate() == A_ASSOCIATE_AC
        peer.send(content)
        assert peer.receive()[0] == A_ABORT
        assert peer.is_closed_within(3.0)


def _is_accepted_now(port: int) -> bool:
    with RawPeer(port) as peer:
        return peer.associate() == A_ASSOCIATE_AC


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
