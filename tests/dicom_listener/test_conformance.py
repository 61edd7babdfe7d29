"""What the conformance statement claims is negotiated, context by context, and some that it does not claim."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from pynetdicom import AE, build_context

from dicom_listener.conformance import statement, storage_classes, transfer_syntaxes
from dicom_listener.conformance_cli import conformance
from tests.dicom_listener.conftest import Running
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


def test_every_claimed_storage_class_is_accepted(listener: Running) -> None:
    text = statement(ListenerSettings())
    classes = [str(uid) for uid in storage_classes()]
    assert len(classes) > 150
    assert all(f"`{uid}`" in text for uid in classes)

    for start in range(0, len(classes), 128):
        results = negotiate(listener.port, [(uid, ["1.2.840.10008.1.2"]) for uid in classes[start : start + 128]])
        assert set(results.values()) == {0}


def test_every_claimed_transfer_syntax_is_accepted(listener: Running) -> None:
    text = statement(ListenerSettings())
    syntaxes = [str(uid) for uid in transfer_syntaxes()]
    assert len(syntaxes) > 40
    assert all(f"`{uid}`" in text for uid in syntaxes)

    results = negotiate(listener.port, [(CT_IMAGE_STORAGE, [uid]) for uid in syntaxes])

    assert set(results.values()) == {0}


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
        "| associations at once | 7; beyond: rejected (2/3/2) |",
        "| calling AE titles that are not set | are rejected (1/1/3) |",
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
