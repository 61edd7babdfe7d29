"""The DICOM conformance statement (after PS3.2) of a listener as it is configured: `ich-triage conformance`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

from dicom_listener.conformance_reconcile import reconcile_section
from dicom_listener.contexts import FIRST_CHOICE, STORAGE_COMMITMENT, VERIFICATION
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from triage.settings import ListenerSettings, ReconcileSettings

STATUSES = (
    ("0000", "Success", "the data set is on disk, synced, and in the ledger"),
    (
        "A700",
        "Refused: Out of Resources",
        "disk full or nearly full, ledger takes no rows, or no instance and quarantine full",
    ),
    ("A900", "Error: Data Set Does Not Match SOP Class", "a UID is missing, is none, or differs from the command's"),
    ("C000", "Error: Cannot Understand", "the data set does not parse or is cut short"),
    ("0122", "Refused: SOP Class Not Supported", "the presentation context is not one of storage"),
)


def storage_classes() -> list[UID]:
    """Give the public storage SOP classes that are claimed by name."""
    return sorted((UID(str(context.abstract_syntax)) for context in AllStoragePresentationContexts), key=str)


def transfer_syntaxes() -> list[UID]:
    """Give the transfer syntaxes that are claimed by name, in order of preference."""
    rest = [UID(str(syntax)) for syntax in ALL_TRANSFER_SYNTAXES if str(syntax) not in FIRST_CHOICE]
    return [*map(UID, FIRST_CHOICE), *rest]


def statement(settings: ListenerSettings, reconcile: ReconcileSettings | None = None) -> str:
    """Write the conformance statement as Markdown.

    Args:
        settings: of the port.
        reconcile: of the comparison with the PACS; None: leave it out.
    """
    asked = reconcile_section(reconcile) if reconcile is not None else ()
    port = (*_overview(), *_networking(settings), *_contexts(), *_storage(settings))
    return "\n".join([*port, *asked, *_security(settings, reconcile)]) + "\n"


def _overview() -> Iterator[str]:
    yield "# DICOM Conformance Statement"
    yield ""
    yield "Written by `ich-triage conformance` from the configuration; do not edit."
    yield ""
    yield "ich-triage receives images by C-STORE, commits to them, and answers C-ECHO."
    yield ""
    services = [(name, "no", "yes") for name in ("Verification", "Storage", "Storage Commitment Push Model")]
    yield from _table(("network service", "user (SCU)", "provider (SCP)"), services)
    yield ""


def _networking(settings: ListenerSettings) -> Iterator[str]:
    known = "are rejected (1/1/3)" if settings.only_known_senders else "are accepted"
    called = "is rejected (1/1/7)" if settings.require_called_ae_title else "is accepted"
    yield "## Association policies"
    yield ""
    yield from _table(
        ("item", "value"),
        [
            ("AE title", f"`{settings.ae_title}`"),
            ("TCP port", str(settings.port)),
            ("another called AE title", called),
            ("calling AE titles that are not set", known),
            ("associations at once", f"{settings.max_associations}; beyond: rejected (2/3/2)"),
            ("maximum PDU length received", f"{settings.max_pdu_bytes} bytes"),
            ("asynchronous operations", "one at a time: any window proposed is answered 1/1"),
            ("SOP class extended and common extended negotiation", "not answered"),
            ("user identity (PS3.7 D.3.3.7)", _identities(settings)),
            ("time for negotiation", f"{settings.negotiation_timeout_s:g} s"),
            ("time without a word", f"{settings.network_timeout_s:g} s, then A-ABORT"),
            ("largest data set", f"{settings.max_object_bytes} bytes, then A-ABORT"),
            ("implementation class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("implementation version name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ],
    )
    yield ""


def _identities(settings: ListenerSettings) -> str:
    checked = [sender for sender in settings.senders if sender.username]
    if not checked:
        return "accepted in every type, not checked, no positive response"
    names = ", ".join(f"`{sender.ae_title}`: type {'2' if sender.passcode_hash else '1 or 2'}" for sender in checked)
    return (
        f"asked of {names}, answered positively where asked for, else rejected (1/2/1); "
        "of all others accepted in every type, not checked, no positive response"
    )


def _contexts() -> Iterator[str]:
    yield "## Presentation contexts"
    yield ""
    yield "Any context of an abstract syntax below is accepted in any transfer syntax. Of several offered in one"
    yield "context that is taken which is uncompressed little endian, else the first that the sender names. Private SOP"
    yield "classes, retired storage classes and transfer syntaxes not listed are accepted as well, as nothing is"
    yield "decoded on the way in. Other services of the Standard are rejected (abstract syntax not supported)."
    yield ""
    abstract = [(_name(uid), f"`{uid}`") for uid in (UID(VERIFICATION), UID(STORAGE_COMMITMENT), *storage_classes())]
    yield from _table(("abstract syntax", "UID"), abstract)
    yield ""
    yield from _table(("transfer syntax", "UID"), [(_name(uid), f"`{uid}`") for uid in transfer_syntaxes()])
    yield ""


def _storage(settings: ListenerSettings) -> Iterator[str]:
    yield "## Storage"
    yield ""
    yield "Level 2 (full): every element is kept, byte for byte, with File Meta Information in front (PS3.10). A second"
    yield "data set under a known SOP Instance UID is kept beside the first, as a conflict; none is overwritten."
    yield f"Below {settings.min_free_bytes} bytes of free disk images are refused before anything is written."
    yield ""
    yield from _table(("status", "meaning", "when"), [(f"0x{code}", meaning, when) for code, meaning, when in STATUSES])
    yield ""
    yield "## Storage commitment"
    yield ""
    yield "Each instance is judged by its row and its file: kept, no such object instance (0x0112), or class and"
    yield "instance conflict (0x0119). The report goes out on the association of the request while that is open, else"
    yield "on a new one to the sender's `commitment_port`, again and again for a day."
    yield ""
    yield "## Character sets"
    yield ""
    yield "All of PS3.3 C.12.1.1.2. A missing, wrong or unknown one never fails a receive."
    yield ""


def _security(settings: ListenerSettings, reconcile: ReconcileSettings | None) -> Iterator[str]:
    yield "## Security"
    yield ""
    if settings.tls_certificate is None:
        yield "No TLS. Set `tls_certificate` where the network between PACS and listener is not trusted."
    else:
        clients = "and must show a certificate" if settings.tls_client_ca is not None else "and need no certificate"
        yield "Non-Downgrading BCP 195 TLS Secure Transport Connection Profile (PS3.15 B.12);"
        yield f"senders speak TLS {clients}."
    if reconcile is not None and reconcile.tls_ca is not None:
        yield ""
        yield "Towards the PACS: the same profile; its certificate is checked against an authority that is set."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _name(uid: UID) -> str:
    return uid.name if uid.name != uid else "(newer than this software's dictionary)"
