"""Extended negotiation (PS3.7 Annex D.3): who a sender says it is, windows, and what is passed over."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from dicom_listener.cli import echo
from dicom_listener.passcode_cli import passcode
from dicom_listener.senders import Senders
from dicom_listener.user_identity import Claim, IdentityCheck, IdentityKind, PasscodeHash
from tests.builders import ct_series, write_files
from tests.dicom_listener.conftest import Running, running
from tests.dicom_listener.raw_peer import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_RELEASE_RP,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR,
    RawPeer,
    associate_rq,
    item,
)
from triage.errors import ConfigError
from triage.settings import ListenerSettings

SECRET = "Geheim-17"
NOT_AUTHORISED = (1, 2, 1)
ASYNC, EXTENDED, COMMON_EXTENDED, IDENTITY_RQ, IDENTITY_AC = 0x53, 0x56, 0x57, 0x58, 0x59  # item types, PS3.7 D.3.3


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A port with a sender that must show a user, one that must show a passcode too, and any others."""
    senders = [
        {"ae_title": "NAMED", "username": "archive"},
        {"ae_title": "SECRET", "username": "archive", "passcode_hash": str(PasscodeHash.of(SECRET))},
    ]
    with running(tmp_path_factory.mktemp("identity"), senders=senders) as it:
        yield it


def identity(kind: int, primary: bytes, secondary: bytes = b"", *, positive_response: bool = False) -> bytes:
    """A User Identity sub-item (PS3.7 Table D.3-14)."""
    fields = struct.pack(">BBH", kind, positive_response, len(primary)) + primary
    return item(IDENTITY_RQ, fields + struct.pack(">H", len(secondary)) + secondary)


def ask(port: int, calling: str, *user_information: bytes) -> tuple[int, bytes]:
    """Ask for an association with further user information; give the answer's type and body."""
    with RawPeer(port) as peer:
        contexts = [(CT_IMAGE_STORAGE, [EXPLICIT_VR])]
        peer.send(associate_rq(contexts, calling=calling.encode(), more=b"".join(user_information)))
        kind, body = peer.receive()
        if kind == A_ASSOCIATE_AC:
            assert peer.release() == A_RELEASE_RP
        return kind, body


def items_of(answer: bytes) -> dict[int, bytes]:
    """Give the sub-items of the user information of an A-ASSOCIATE-AC, by type."""
    variable = answer[68:]
    user_information = next(content for kind, content in _walk(variable) if kind == 0x50)
    return dict(_walk(user_information))


def _walk(content: bytes) -> Iterator[tuple[int, bytes]]:
    while content:
        kind, length = content[0], struct.unpack_from(">H", content, 2)[0]
        yield kind, content[4 : 4 + length]
        content = content[4 + length :]


@pytest.mark.parametrize(
    "shown",
    [identity(1, b"archive"), identity(2, b"archive", b"whatever")],
    ids=["user name", "user name and an unasked passcode"],
)
def test_right_user_name_is_accepted(shared: Running, shown: bytes) -> None:
    kind, answer = ask(shared.port, "NAMED", shown)

    assert kind == A_ASSOCIATE_AC
    assert IDENTITY_AC not in items_of(answer)  # nobody asked for it


@pytest.mark.parametrize(
    ("calling", "shown"),
    [("NAMED", identity(1, b"archive", positive_response=True)),
     ("SECRET", identity(2, b"archive", SECRET.encode(), positive_response=True))],
)  # fmt: skip
def test_positive_response_is_given_when_asked_for(shared: Running, calling: str, shown: bytes) -> None:
    kind, answer = ask(shared.port, calling, shown)

    assert kind == A_ASSOCIATE_AC
    assert items_of(answer)[IDENTITY_AC] == b"\0\0"  # an empty server response, PS3.7 Table D.3-15


@pytest.mark.parametrize(
    ("calling", "shown"),
    [
        ("NAMED", b""),
        ("NAMED", identity(1, b"Archive")),
        ("NAMED", identity(3, b"kerberos ticket")),
        ("NAMED", identity(4, b"<saml/>", positive_response=True)),
        ("NAMED", identity(5, b"e30.e30.e30")),
        ("SECRET", b""),
        ("SECRET", identity(1, b"archive")),
        ("SECRET", identity(2, b"archive", b"geheim-17")),
        ("SECRET", identity(2, b"another", SECRET.encode())),
    ],
    ids=["none", "other name", "Kerberos", "SAML", "JWT", "none for a passcode", "no passcode", "wrong passcode",
         "right passcode, other name"],
)  # fmt: skip
def test_other_identity_is_rejected_for_good(shared: Running, calling: str, shown: bytes) -> None:
    kind, answer = ask(shared.port, calling, shown)

    assert kind == A_ASSOCIATE_RJ
    assert tuple(answer[1:4]) == NOT_AUTHORISED


@pytest.mark.parametrize("kind", list(IdentityKind), ids=lambda kind: kind.name)
def test_identity_that_is_not_checked_is_accepted_without_a_response(shared: Running, kind: IdentityKind) -> None:
    """PS3.7 D.3.3.7: an acceptor that does not look at it accepts, and confirms nothing."""
    answered, answer = ask(shared.port, "PACS", identity(kind, b"somebody", b"x", positive_response=True))

    assert answered == A_ASSOCIATE_AC
    assert IDENTITY_AC not in items_of(answer)


def test_identity_of_a_type_that_the_standard_has_not_is_aborted(shared: Running) -> None:
    kind, _ = ask(shared.port, "PACS", identity(9, b"somebody"))

    assert kind == A_ABORT
    assert ask(shared.port, "PACS")[0] == A_ASSOCIATE_AC


def test_neither_passcode_nor_user_name_reaches_the_log(shared: Running) -> None:
    with capture_logs() as lines:
        ask(shared.port, "SECRET", identity(2, b"archive", b"wrong-one"))
        ask(shared.port, "SECRET", identity(2, b"archive", SECRET.encode()))
        ask(shared.port, "SECRET", identity(2, b"somebody", SECRET.encode()))

    assert [line["reason"] for line in lines if line["event"] == "sender_rejected"] == [
        "a wrong passcode", "another user name than the one set"
    ]  # fmt: skip
    assert not re.search(f"archive|somebody|wrong-one|{SECRET}", str(lines))


@pytest.mark.dcmtk
@pytest.mark.parametrize(("password", "code"), [(SECRET, 0), ("wrong", 1)])
def test_dcmtk_shows_a_passcode_and_insists_on_the_response(
    shared: Running, tmp_path: Path, password: str, code: int
) -> None:
    write_files(ct_series(slices=1), tmp_path / "scan")
    command = ["storescu", "--user", "archive", "--password", password, "--pos-response", "-aet", "SECRET",
               "-aec", "ICHTRIAGE", "127.0.0.1", str(shared.port), "+sd", str(tmp_path / "scan")]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.returncode != 0) is bool(code), done.stderr


def test_echo_shows_a_user_and_its_passcode(shared: Running) -> None:
    where = ["127.0.0.1", str(shared.port), "ICHTRIAGE", "--calling-aet", "SECRET", "--timeout", "30"]
    run = CliRunner().invoke

    assert run(echo, [*where, "--username", "archive", "--ask-passcode"], input=f"{SECRET}\n").exit_code == 0
    wrong = run(echo, [*where, "--username", "archive", "--ask-passcode"], input="wrong\n")
    assert (wrong.exit_code, "rejected the association (1/2/1)" in wrong.stderr) == (1, True)
    assert run(echo, where).exit_code == 1
    assert run(echo, [*where, "--ask-passcode"]).exit_code == 2


def test_window_of_asynchronous_operations_is_one(shared: Running) -> None:
    kind, answer = ask(shared.port, "PACS", item(ASYNC, struct.pack(">HH", 0, 5)))  # unlimited and 5

    assert kind == A_ASSOCIATE_AC
    assert items_of(answer)[ASYNC] == struct.pack(">HH", 1, 1)


def test_sop_class_extended_negotiation_is_passed_over(shared: Running) -> None:
    """PS3.7 D.3.3.5, D.3.3.6: no answer means that the defaults hold; the common one is never answered."""
    sop_class = struct.pack(">H", len(CT_IMAGE_STORAGE)) + CT_IMAGE_STORAGE
    extended = item(EXTENDED, sop_class + b"\x02\x00\x03\x00\x01\x00")
    service = struct.pack(">H", 17) + b"1.2.840.10008.4.2"
    common = item(COMMON_EXTENDED, sop_class + service + struct.pack(">H", 0))

    kind, answer = ask(shared.port, "PACS", extended, common)

    assert kind == A_ASSOCIATE_AC
    assert not {EXTENDED, COMMON_EXTENDED} & items_of(answer).keys()


def test_contexts_offered_in_vain_are_told_to_the_administrator(shared: Running) -> None:
    private = b"1.2.840.10008.99.99"  # below the Standard's root, and not of it
    printing = b"1.2.840.10008.5.1.1.9"
    with capture_logs() as lines, RawPeer(shared.port) as peer:
        peer.associate([(CT_IMAGE_STORAGE, [EXPLICIT_VR]), (printing, [EXPLICIT_VR]), (private, [EXPLICIT_VR])])
        assert peer.release() == A_RELEASE_RP

    [line] = [line for line in lines if line["event"] == "contexts_rejected"]
    assert line["contexts"] == 2
    assert line["reason"] == "Basic Grayscale Print Management Meta SOP Class, one of no public name"
    count = shared.listener._metrics.value(
        "ich_listener_contexts_rejected_total", reason="abstract syntax not supported"
    )
    assert count == 2


def test_passcode_is_hashed_by_the_command_and_checked() -> None:
    printed = CliRunner().invoke(passcode, input=f"{SECRET}\n{SECRET}\n").output
    [text] = re.findall(r'^passcode_hash = "(.*)"$', printed, re.MULTILINE)
    check = IdentityCheck("archive", text)

    def claim(shown: str) -> Claim:
        return Claim(IdentityKind.USERNAME_AND_PASSCODE, b"archive", shown.encode())

    assert SECRET not in text
    assert [check.objection(claim(shown)) for shown in (SECRET, SECRET, "x", "")] == [
        "", "", "a wrong passcode", "a wrong passcode"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sender", "said"),
    [({"username": "a", "passcode_hash": "plain"}, "ich-triage passcode"),
     ({"username": "a", "passcode_hash": "scrypt$3$8$1$AAAA$AAAA"}, "ich-triage passcode"),
     ({"passcode_hash": "scrypt$2$8$1$AAAA$AAAA"}, "needs a username")],
)  # fmt: skip
def test_settings_that_cannot_be_checked_by_are_named(sender: dict[str, str], said: str) -> None:
    settings = ListenerSettings(senders=[{"ae_title": "PACS"} | sender])

    with pytest.raises(ConfigError, match=said):
        Senders(settings)
    assert "scrypt" not in repr(settings)
