"""What the conformance statement claims is negotiated, context by context, and some that it does not claim."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner
from pynetdicom import AE, build_context

from dicom_listener.conformance import statement, storage_classes, transfer_syntaxes
from dicom_listener.conformance_cli import conformance
from tests.dicom_listener.conftest import Running
from tests.dicom_listener.raw_peer import A_ASSOCIATE_AC, A_RELEASE_RP, RawPeer
from triage.settings import ListenerSettings, SenderSettings

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
NOT_CLAIMED = [
    "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root Query/Retrieve - FIND
    "1.2.840.10008.5.1.4.31",  # Modality Worklist
    "1.2.840.10008.5.1.1.9",  # Basic Grayscale Print
    "1.2.840.10008.3.1.2.3.3",  # Modality Performed Procedure Step
    "1.2.840.10008.5.1.4.34.6.1",  # Unified Procedure Step - Push
]


def negotiate(port: int, contexts: list[tuple[str, list[str]]]) -> dict[tuple[str, tuple[str, ...]], int]:
    """Propose up to 128 contexts and give each one's result."""
    proposed = [build_context(abstract, syntaxes) for abstract, syntaxes in contexts]
    association = AE("PACS").associate("127.0.0.1", port, contexts=proposed, ae_title="ICHTRIAGE")
    try:
        answered = [*association.accepted_contexts, *association.rejected_contexts]
        by_id = {context.context_id: context.result for context in answered}
        return {
            (abstract, tuple(syntaxes)): by_id[2 * index + 1] for index, (abstract, syntaxes) in enumerate(contexts)
        }
    finally:
        if association.is_established:
            association.release()
        else:
            association.abort()


def test_every_claimed_context_is_accepted(listener: Running) -> None:
    """Each abstract syntax in each transfer syntax that the statement lists, one context each."""
    text = statement(ListenerSettings())
    section = text[text.index("### 3.3 ") : text.index("### 3.4 ")]
    abstract, syntaxes = ([line.split("`")[1] for line in part.splitlines() if line.startswith("| ") and "`" in line]
                          for part in section.split("| transfer syntax |"))  # fmt: skip
    assert len(abstract) == len(storage_classes()) + 2 > 150
    assert syntaxes == [str(uid) for uid in transfer_syntaxes()]
    assert len(syntaxes) > 40

    claimed = [(uid.encode(), [syntax.encode()]) for uid in abstract for syntax in syntaxes]
    for start in range(0, len(claimed), 128):
        proposed = claimed[start : start + 128]
        with RawPeer(listener.port) as peer:
            assert peer.associate(proposed) == A_ASSOCIATE_AC
            results = re.findall(rb"\x21\x00..(.)\x00(.)\x00", peer.answer, re.DOTALL)
            assert [result for _, result in results] == [b"\x00"] * len(proposed)
            assert peer.release() == A_RELEASE_RP


def test_statement_says_whom_the_commitment_report_calls() -> None:
    senders = (SenderSettings(ae_title="CT1", commitment_port=4004), SenderSettings(ae_title="CT2"))

    assert "| called | the host of the request; `CT1` at port 4004 |" in statement(ListenerSettings(senders=senders))
    assert "`commitment_port` is set for no sender" in statement(ListenerSettings())


def test_what_is_not_claimed_is_rejected(listener: Running) -> None:
    text = statement(ListenerSettings())
    assert not any(f"`{uid}`" in text for uid in NOT_CLAIMED)

    results = negotiate(listener.port, [(uid, ["1.2.840.10008.1.2"]) for uid in [CT_IMAGE_STORAGE, *NOT_CLAIMED]])

    assert list(results.values()) == [0, 3, 3, 3, 3, 3]  # 3: abstract syntax not supported


def test_uncompressed_little_endian_is_preferred(listener: Running) -> None:
    jpeg, implicit, explicit = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
    for offered, taken in (([jpeg, implicit, explicit], explicit), ([jpeg, implicit], implicit), ([jpeg], jpeg)):
        contexts = [build_context(CT_IMAGE_STORAGE, offered)]
        association = AE("PACS").associate("127.0.0.1", listener.port, contexts=contexts, ae_title="ICHTRIAGE")
        assert association.accepted_contexts[0].transfer_syntax == [taken]
        association.release()


def test_statement_has_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "triage.toml"
    config.write_text('[listener]\nae_title = "BRAIN"\nport = 104\nmax_associations = 7\nonly_known_senders = true\n')

    result = CliRunner().invoke(conformance, ["--config", str(config)])

    assert result.exit_code == 0
    for line in (
        "| AE title | `BRAIN` |",
        "| TCP port | 104 |",
        "| associations at once | 7 |",
        "| 1 / 1 / 7, called AE title not recognized | another one than `BRAIN` is called |",
        "| 1 / 1 / 3, calling AE title not recognized | it is none of `listener.senders`, or it calls from a host ",
        "| 2 / 3 / 2, local limit exceeded | beyond 7 associations, or beyond those of one sender |",
    ):
        assert line in result.stdout
    assert "No TLS." in result.stdout


def test_statement_says_whose_identity_is_asked_for() -> None:
    named = SenderSettings(ae_title="CT1", username="ct")
    with_passcode = SenderSettings(ae_title="ARCHIVE", username="pacs", passcode_hash="scrypt$2$8$1$AAAA$AAAA")

    checked = statement(ListenerSettings(senders=(named, with_passcode)))

    assert "| accepted in every type, not checked, no positive response |" in statement(ListenerSettings())
    assert "asked of `CT1`: type 1 or 2, `ARCHIVE`: type 2, answered positively" in checked
    assert "scrypt" not in checked
