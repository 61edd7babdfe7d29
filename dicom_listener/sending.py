"""Sending folders of DICOM files by C-STORE, for trying things and for demonstrations (PS3.4 Annex B, as SCU)."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_listener.own_token import OWN_NAME, own_token
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.tls import ClientTls, own_port_tls
from triage.errors import TriageError
from triage.settings import Settings

CONTEXTS_MAX = 128  # presentation contexts in one association (PS3.8 9.3.2.2)
CONNECT_S = 10.0
REACTOR_TURN_S = 5.0  # pynetdicom's reactor turns every millisecond
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - how to reach ourselves there
REJECTIONS = {  # A-ASSOCIATE-RJ, PS3.8 9.3.4
    (1, 1, 1): "it gives no reason; often it does not know {peer.calling_ae_title}",
    (1, 1, 3): "it does not know the AE title {peer.calling_ae_title}, or not from this host",
    (1, 1, 7): "it does not call itself {peer.called_ae_title}",
    (1, 2, 1): "it asks for a user identity",
    (2, 3, 1): "it is busy, try again later",
    (2, 3, 2): "it has as many associations as it takes, try again later",
}
ACCEPTED = frozenset({0x0000, 0xB000, 0xB006, 0xB007})  # PS3.4 Table B.2-1: Success, and warnings: stored as well


class PeerUnreachable(TriageError):
    """No association with the peer."""


@dataclass(frozen=True)
class Peer:
    """Whom to send to."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str = "ICHSEND"
    tls: ClientTls | None = None
    token: bytes = field(default=b"", repr=False)  # of a port of ours, see `own_token`

    def associate(self, ae: AE, contexts: list[Any], *, ext_neg: Sequence[Any] = (), **options: Any) -> Association:
        """Ask for an association, by pynetdicom's `associate`; it may not be established."""
        if self.tls is not None:
            options["tls_args"] = (self.tls.context, self.tls.server_name or self.host)
        opened: list[Any] = []
        note = (evt.EVT_CONN_OPEN, lambda event: opened.append(event.assoc.dul.socket.socket))
        options["evt_handlers"] = [*options.get("evt_handlers", ()), note]
        options["ext_neg"] = [*ext_neg, *([_own_identity(self.token)] if self.token else [])]
        association = ae.associate(self.host, self.port, contexts=contexts, ae_title=self.called_ae_title, **options)
        for connection in opened if not association.is_established else ():
            connection.close()  # pynetdicom leaves it open when the peer has gone
        return association

    def __str__(self) -> str:
        return f"{self.called_ae_title} at {self.host}:{self.port}"


def own_port(settings: Settings, calling_ae_title: str) -> Peer:
    """Give our own port, to be called as a process that shares its storage folder.

    Raises:
        ConfigError: the files of TLS cannot be used.
    """
    listener = settings.listener
    host = settings.reconcile.listener_host or ANY_HOST.get(listener.host, listener.host)
    token = own_token(settings.storage.folder)
    return Peer(host, listener.port, listener.ae_title, calling_ae_title, own_port_tls(listener), token)


@dataclass(frozen=True)
class DicomFile:
    """A Part 10 file and what its association must offer."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str
    true_to_meta: bool  # the file meta names the UIDs that the data set has


@dataclass(frozen=True)
class Sent:
    """What became of one file; status None: no answer, or no context for it."""

    file: DicomFile
    status: int | None

    @property
    def accepted(self) -> bool:
        """Whether the peer has taken the image."""
        return self.status in ACCEPTED


def find_files(paths: Iterable[Path]) -> tuple[list[DicomFile], int]:
    """Find the DICOM files among files and in folders, in order of path; give also the count of others."""
    found, others = [], 0
    for path in paths:
        for file in sorted(_walk(path)):
            described = _describe(file)
            if described is None:
                others += 1
            else:
                found.append(described)
    return found, others


def send_files(
    files: Sequence[DicomFile], peer: Peer, *, associations: int = 1, on_sent: Callable[[Sent], None] | None = None
) -> list[Sent]:
    """Send files over one or more associations at once, dealt out in turn.

    Args:
        files: what to send.
        peer: where to.
        associations: how many at once.
        on_sent: called for each file from the association's thread.

    Raises:
        PeerUnreachable: an association was not accepted.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # the data set's bytes as they are in the file
    shares = [files[start::associations] for start in range(associations)]
    lock = threading.Lock()

    def tell(sent: Sent) -> None:
        if on_sent is not None:
            with lock:
                on_sent(sent)

    with ThreadPoolExecutor(associations) as pool:
        results = list(pool.map(lambda share: _send_share(share, peer, tell), shares))
    return [sent for share in results for sent in share]


def verify(peer: Peer, *, timeout_s: float = 10.0) -> int:
    """Send one C-ECHO and give its status (PS3.4 Annex A).

    Raises:
        PeerUnreachable: no association, or no answer.
    """
    ae = _application_entity(peer, timeout_s)
    association = _associate(ae, peer, [("1.2.840.10008.1.1", "1.2.840.10008.1.2")])
    with _closed_at_the_end(association), reactor_held(association):
        status = association.send_c_echo()
    if "Status" not in status:
        raise PeerUnreachable(f"{peer.host}:{peer.port} gave no answer to C-ECHO within {timeout_s:g} s.")
    return int(status.Status)


@contextmanager
def reactor_held(association: Association) -> Iterator[None]:
    """Keep pynetdicom's reactor of a requestor from taking answers that a request waits for.

    `send_c_store` pauses the reactor by a flag that it may have read just before: on a busy machine the reactor then
    takes the answer as unexpected, and the request times out.
    """
    before = association._reactor_checkpoint
    checkpoint = association._reactor_checkpoint = _Checkpoint()
    checkpoint.reached.wait(REACTOR_TURN_S)
    try:
        yield
    finally:
        association._reactor_checkpoint = before
        checkpoint.let_go()


class _Checkpoint(threading.Event):
    """A checkpoint that stays closed until it is let go, and tells when the reactor has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        """Stay closed: pynetdicom sets it after each request."""

    def let_go(self) -> None:
        super().set()


def _walk(path: Path) -> Iterator[Path]:
    if path.is_dir():
        return (file for file in path.rglob("*") if file.is_file())
    return iter([path])


def _describe(path: Path) -> DicomFile | None:
    try:
        meta = read_file_meta_info(path)
        syntax = str(meta.TransferSyntaxUID)
        ds = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        sop_class = str(ds.SOPClassUID)
        named = str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("MediaStorageSOPInstanceUID", ""))
        true_to_meta = named == (sop_class, str(ds.get("SOPInstanceUID", "")))
    except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError):
        return None
    if sop_class == "1.2.840.10008.1.3.10":  # a DICOMDIR is no image
        return None
    return DicomFile(path, sop_class, syntax, true_to_meta)


def _send_share(files: Sequence[DicomFile], peer: Peer, tell: Callable[[Sent], None]) -> list[Sent]:
    results = []
    for part in _by_contexts(files):
        association = _associate(_application_entity(peer, 60.0), peer, _wanted(part))
        with _closed_at_the_end(association), reactor_held(association):
            for file in part:
                sent = Sent(file, _store(association, file))
                tell(sent)
                results.append(sent)
    return results


def _by_contexts(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    """Cut into runs that one association's presentation contexts can carry."""
    run: list[DicomFile] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        wanted = (file.sop_class_uid, file.transfer_syntax_uid)
        if wanted not in contexts and len(contexts) == CONTEXTS_MAX:
            yield run
            run, contexts = [], set()
        contexts.add(wanted)
        run.append(file)
    if run:
        yield run


def _wanted(files: Sequence[DicomFile]) -> list[tuple[str, str]]:
    return list(islice(dict.fromkeys((file.sop_class_uid, file.transfer_syntax_uid) for file in files), CONTEXTS_MAX))


def _application_entity(peer: Peer, timeout_s: float) -> AE:
    ae = AE(ae_title=peer.calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.connection_timeout = CONNECT_S
    return ae


def _associate(ae: AE, peer: Peer, wanted: Sequence[tuple[str, str]]) -> Association:
    check_reachable(peer)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in wanted]
    association = peer.associate(ae, contexts)
    if not association.is_established:
        raise PeerUnreachable(f"{peer} {why_not_established(association, peer)}")
    return association


def _own_identity(token: bytes) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type, item.primary_field, item.secondary_field = 2, OWN_NAME, token
    return item


def why_not_established(association: Association, peer: Peer) -> str:
    """Say why an association was not opened, and what to do, as the rest of a sentence on the peer."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        code = (answer.result, answer.result_source, answer.diagnostic)
        said = REJECTIONS.get(code, "it gives no reason that is known")
        return f"rejected the association ({'/'.join(map(str, code))}): {said.format(peer=peer)}."
    if answer is not None and association.rejected_contexts:
        return "accepts none of the services asked for."
    if peer.tls is None:
        return "does not answer as a DICOM peer. Does it speak TLS, or is this another port?"
    return "ends the connection. Does it ask for a client certificate, or accept not this one?"


def check_reachable(peer: Peer) -> None:
    """Try the port first: pynetdicom would only say that there is no association, and leave its socket open.

    Raises:
        PeerUnreachable: it cannot be reached, or its side of TLS is not what it should be.
    """
    try:
        with socket.create_connection((peer.host, peer.port), CONNECT_S) as connection:
            if peer.tls is not None:
                peer.tls.context.wrap_socket(connection, server_hostname=peer.tls.server_name or peer.host).close()
    except ssl.SSLCertVerificationError as error:
        raise PeerUnreachable(f"The certificate of {peer} does not do: {error.verify_message}.") from error
    except (ssl.SSLError, ConnectionResetError, TimeoutError) as error:
        what = "gives no answer" if peer.tls is None else "speaks no TLS 1.2 or newer, or not with us"
        raise PeerUnreachable(f"{peer} {what}.") from error
    except OSError as error:
        raise PeerUnreachable(f"{peer.host}:{peer.port} cannot be reached: {error.strerror or error}.") from error


@contextmanager
def _closed_at_the_end(association: Association) -> Iterator[None]:
    """Release an association, and close its socket also where the peer has gone."""
    connection = association.dul.socket.socket
    try:
        yield
    finally:
        if association.is_established:
            association.release()
        connection.close()


def _store(association: Association, file: DicomFile) -> int | None:
    """Send one file's data set as it is; None: the peer took no such context, or did not answer."""
    if not association.is_established:
        return None
    try:
        # by path, pynetdicom takes the command's UIDs from the file meta, which anonymisers leave as they were
        status = association.send_c_store(file.path if file.true_to_meta else dcmread(file.path))
    except (ValueError, AttributeError, RuntimeError, OSError):
        return None
    return int(status.Status) if "Status" in status else None
