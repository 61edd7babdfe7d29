"""A DICOM peer that we call: how an association with it is asked for, and why there is none."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_listener.own_token import OWN_NAME, own_token
from dicom_listener.tls import ClientTls, own_port_tls
from dicom_listener.user_identity import IdentityKind
from triage.errors import TriageError
from triage.settings import Settings

CONNECT_S = 10.0
REACTOR_TURN_S = 5.0  # pynetdicom's reactor turns every millisecond
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - how to reach ourselves there
REJECTIONS = {  # A-ASSOCIATE-RJ, PS3.8 9.3.4
    (1, 1, 1): "it gives no reason; often it does not know {peer.calling_ae_title}",
    (1, 1, 3): "it does not know the AE title {peer.calling_ae_title}, or not from this host",
    (1, 1, 7): "it does not call itself {peer.called_ae_title}",
    (1, 2, 1): "it asks for a user identity, or for another one",
    (2, 2, 1): "it gives no reason; often it asks for a user identity, or for another one",
    (2, 3, 1): "it is busy, try again later",
    (2, 3, 2): "it has as many associations as it takes, try again later",
}


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
    username: bytes = b""  # shown in user identity negotiation (PS3.7 D.3.3.7)
    passcode: bytes = field(default=b"", repr=False)  # with it

    def associate(self, ae: AE, contexts: list[Any], *, ext_neg: Sequence[Any] = (), **options: Any) -> Association:
        """Ask for an association, by pynetdicom's `associate`; it may not be established."""
        if self.tls is not None:
            options["tls_args"] = (self.tls.context, self.tls.server_name or self.host)
        opened: list[Any] = []
        note = (evt.EVT_CONN_OPEN, lambda event: opened.append(event.assoc.dul.socket.socket))
        options["evt_handlers"] = [*options.get("evt_handlers", ()), note]
        options["ext_neg"] = [*ext_neg, *([_identity(self.username, self.passcode)] if self.username else [])]
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
    tls = own_port_tls(listener)
    return Peer(host, listener.port, listener.ae_title, calling_ae_title, tls, OWN_NAME if token else b"", token)


def _identity(username: bytes, passcode: bytes) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = IdentityKind.USERNAME_AND_PASSCODE if passcode else IdentityKind.USERNAME
    item.primary_field = username
    if passcode:
        item.secondary_field = passcode
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
