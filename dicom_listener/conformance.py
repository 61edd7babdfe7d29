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
    port = (*_policies(settings), *_contexts(), *_storage(settings), *_commitment(settings))
    rest = (*_networks(settings), *_security(settings, reconcile))
    return "\n".join([*_overview(reconcile), *_model(settings, reconcile), *port, *asked, *rest]) + "\n"


def _overview(reconcile: ReconcileSettings | None) -> Iterator[str]:
    yield "# DICOM Conformance Statement"
    yield ""
    yield "Written by `ich-triage conformance` from the configuration, after PS3.2; do not edit. For those who connect"
    yield "a PACS or a scanner: a statement of conformance does not replace trying the two together."
    yield ""
    yield "## 1 Overview"
    yield ""
    yield "ich-triage receives head CTs by C-STORE, commits to them, and sets the order of a reading list. It offers no"
    yield "query by DIMSE, and changes none of what it is sent. worklist_ui/README.md describes its DICOMweb services."
    yield ""
    services = [
        ("Verification", "yes", "yes"),
        ("Storage", "for trying only: `ich-triage send`", "yes"),
        ("Storage Commitment Push Model", "no", "yes"),
        *_query_services(reconcile),
        ("Media interchange", "no", "no"),
    ]
    yield from _table(("service", "user (SCU)", "provider (SCP)"), services)
    yield ""


def _query_services(reconcile: ReconcileSettings | None) -> Iterator[tuple[str, str, str]]:
    if reconcile is not None:
        fetched = {"move": "MOVE", "get": "GET"}.get(reconcile.retrieve)
        for operation in ("FIND", *([fetched] if fetched else [])):
            yield f"Query/Retrieve, Study Root - {operation}", "yes", "no"


def _model(settings: ListenerSettings, reconcile: ReconcileSettings | None) -> Iterator[str]:
    yield "## 2 Implementation model"
    yield ""
    keeps = "keeps what senders push, answers C-ECHO and commitment requests"
    asks = "asks the PACS what it has and fetches what is missing"
    entities = [("Listener", f"`{settings.ae_title}`", keeps, "for commitment reports", "yes")]
    if reconcile is not None:
        entities.append(("Comparison", f"`{reconcile.ae_title}`", asks, "yes", "no"))
    yield from _table(("application entity", "AE title", "does", "initiates associations", "accepts them"), entities)
    yield ""
    yield "Each image is on the disk, synced, and in the ledger before Success is answered; what is done with it later"
    yield "has no part in that. Each entity is a process of its own, and none needs another to run."
    yield ""


def _policies(settings: ListenerSettings) -> Iterator[str]:
    yield "## 3 Listener"
    yield ""
    yield "### 3.1 Association policies"
    yield ""
    yield from _table(
        ("item", "value"),
        [
            ("application context", "`1.2.840.10008.3.1.1.1`"),
            ("associations at once", str(settings.max_associations)),
            ("maximum PDU length received", f"{settings.max_pdu_bytes} bytes"),
            ("asynchronous operations", "one at a time: any window proposed is answered 1/1"),
            ("SOP class extended and common extended negotiation", "not answered"),
            ("user identity (PS3.7 D.3.3.7)", _identities(settings)),
            ("time for negotiation", f"{settings.negotiation_timeout_s:g} s, then the connection is closed"),
            ("time without a word", f"{settings.network_timeout_s:g} s, then A-ABORT"),
            ("largest data set", f"{settings.max_object_bytes} bytes, then A-ABORT"),
            ("implementation class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("implementation version name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ],
    )
    yield ""
    yield "### 3.2 Associations that are rejected"
    yield ""
    yield from _table(("result / source / reason", "when"), _rejections(settings))
    yield ""
    yield "A PDU that PS3.8 does not allow, or whose lengths do not add up, is answered by A-ABORT."
    yield ""


def _rejections(settings: ListenerSettings) -> Iterator[tuple[str, str]]:
    if settings.require_called_ae_title:
        yield "1 / 1 / 7, called AE title not recognized", f"another one than `{settings.ae_title}` is called"
    unknown = "it is none of `listener.senders`, or " if settings.only_known_senders else ""
    yield "1 / 1 / 3, calling AE title not recognized", f"{unknown}it calls from a host that is not set for it"
    if any(sender.username for sender in settings.senders):
        yield "1 / 2 / 1, no reason given", "the user identity that is set for it was not shown"
    yield (
        "2 / 3 / 2, local limit exceeded",
        f"beyond {settings.max_associations} associations, or beyond those of one sender",
    )


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
    yield "### 3.3 Presentation contexts"
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
    yield "### 3.4 Storage"
    yield ""
    yield "Level 2 (full): every element is kept, byte for byte, with File Meta Information in front (PS3.10); none is"
    yield "coerced. A second data set under a known SOP Instance UID is kept beside the first, as a conflict, and none"
    yield f"overwritten. Below {settings.min_free_bytes} bytes of free disk images are refused, with nothing written."
    yield ""
    yield from _table(("status", "meaning", "when"), [(f"0x{code}", meaning, when) for code, meaning, when in STATUSES])
    yield ""


def _commitment(settings: ListenerSettings) -> Iterator[str]:
    yield "### 3.5 Storage commitment"
    yield ""
    yield "Each instance is judged by its row and its file: kept, no such object instance (0x0112), or class and"
    yield "instance conflict (0x0119). The N-EVENT-REPORT goes out on the association of the request while that is"
    yield "open, else on a new one, again and again for a day:"
    yield ""
    ports = [
        (f"`{sender.ae_title}`", str(sender.commitment_port)) for sender in settings.senders if sender.commitment_port
    ]
    where = (
        ", ".join(f"{title} at port {port}" for title, port in ports) or "none: `commitment_port` is set for no sender"
    )
    yield from _table(
        ("item", "value"),
        [
            ("called", f"the host of the request; {where}"),
            ("abstract syntax", f"Storage Commitment Push Model, `{STORAGE_COMMITMENT}`, role SCP proposed"),
            (
                "statuses of N-ACTION",
                "0x0000; 0x0115 no transaction UID or no reference; 0x0123 other action; 0x0110 ledger away",
            ),
            ("event types", "1 all kept; 2 failures exist"),
        ],
    )
    yield ""


def _networks(settings: ListenerSettings) -> Iterator[str]:
    yield "## 5 Network interfaces, configuration, character sets"
    yield ""
    yield from _table(
        ("item", "value"),
        [
            ("network", "TCP/IP, version 4 or 6; names by the host's resolver"),
            ("AE title", f"`{settings.ae_title}`"),
            ("address", f"`{settings.host}`"),
            ("TCP port", str(settings.port)),
            ("what can be set", "CONFIGURATION.md"),
            ("character sets", "all of PS3.3 C.12.1.1.2; a missing, wrong or unknown one never fails a receive"),
        ],
    )
    yield ""


def _security(settings: ListenerSettings, reconcile: ReconcileSettings | None) -> Iterator[str]:
    yield "## 6 Security"
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
