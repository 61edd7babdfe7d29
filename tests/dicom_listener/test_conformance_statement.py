"""The committed conformance statement is that of the defaults, and says what the comparison asks of a PACS."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_listener.conformance import statement
from dicom_listener.pacs import Pacs
from dicom_listener.peer import Peer, PeerUnreachable
from dicom_listener.retrieving import Getter, Mover, Wanted, get_contexts
from tests.dicom_listener.quirky_pacs import running_pacs
from triage.settings import ListenerSettings, ReconcileSettings

ROOT = Path(__file__).resolve().parents[2]


def test_committed_statement_is_that_of_the_defaults() -> None:
    """Else: ich-triage conformance > CONFORMANCE.md."""
    committed = (ROOT / "CONFORMANCE.md").read_text(encoding="utf-8")

    assert committed == statement(ListenerSettings(), ReconcileSettings())


@pytest.mark.parametrize(("retrieve", "claimed"), [("move", 2), ("get", 14), ("none", 1)])
def test_each_context_that_is_proposed_is_claimed(retrieve: str, claimed: int) -> None:
    text = statement(ListenerSettings(), ReconcileSettings(retrieve=retrieve))
    section = text[text.index("## 4 Comparison with the PACS") : text.index("## 5 ")]
    with running_pacs([]) as pacs:
        peer = Peer("127.0.0.1", pacs.port, "QUIRKY", "ICHTRIAGE")
        with Pacs(peer, timeout_s=10):
            pass
        if retrieve == "move":
            Mover(peer, "ICHTRIAGE", timeout_s=10).fetch(Wanted("1.2.3"))
        if retrieve == "get":
            with pytest.raises(PeerUnreachable):  # this PACS has no C-GET
                Getter(peer, peer, timeout_s=10).fetch(Wanted("1.2.3"))

    assert sorted(pacs.proposed) == sorted(uid for uid in pacs.proposed if f"`{uid}`" in section)
    assert len(pacs.proposed) == section.count("| `1.2.840") == claimed


def test_contexts_of_a_get_fit_into_one_association() -> None:
    assert len(get_contexts()) <= 128  # PS3.8 9.3.2.2
