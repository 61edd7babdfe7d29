"""TLS after the Non-Downgrading BCP 195 profile (PS3.15 B.12): of the C-STORE port, and towards a PACS or that port."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triage.errors import ConfigError
from triage.settings import ListenerSettings, ReconcileSettings

# TLS 1.2 suites of RFC 9325 4.2; those of TLS 1.3 are all fine
CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}" for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384") for key in ("ECDSA", "RSA")
)
DAY_S = 86400.0
EXPIRES_SOON_DAYS = 30.0


@dataclass(frozen=True)
class ClientTls:
    """How to open a connection to a peer that speaks TLS; `server_name` is that of its certificate."""

    context: ssl.SSLContext
    server_name: str


def tls_context(settings: ListenerSettings) -> ssl.SSLContext | None:
    """Make the server's side of TLS; None: it is not set.

    Raises:
        ConfigError: certificate, key or authority cannot be read, or do not belong together.
    """
    if settings.tls_certificate is None:
        if settings.tls_key is not None or settings.tls_client_ca is not None:
            raise ConfigError("listener.tls_key and listener.tls_client_ca need listener.tls_certificate.")
        return None
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(context, settings.tls_certificate, settings.tls_key)
    if settings.tls_client_ca is not None:
        _load_authority(context, settings.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def pacs_tls(settings: ReconcileSettings) -> ClientTls | None:
    """Make our side of TLS with the PACS; None: it is not set.

    Raises:
        ConfigError: as `tls_context`.
    """
    if settings.tls_ca is None:
        if settings.tls_certificate is not None or settings.tls_key is not None:
            raise ConfigError("reconcile.tls_certificate and reconcile.tls_key need reconcile.tls_ca.")
        return None
    return client_tls(settings.tls_ca, settings.tls_certificate, settings.tls_key,
                      server_name=settings.tls_server_name or settings.pacs_host)  # fmt: skip


def client_tls(authority: Path, certificate: Path | None, key: Path | None, *, server_name: str) -> ClientTls:
    """Make a client's side of TLS.

    Args:
        authority: PEM; the peer's certificate must be signed by it, or be it.
        certificate: PEM, that we show if asked; None: none.
        key: PEM, if it is not in the certificate's file.
        server_name: that the peer's certificate must be made out to; empty: any.

    Raises:
        ConfigError: a file cannot be read, or they do not belong together.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = bool(server_name)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the one certificate of a peer will do as authority
    _load_authority(context, authority)
    if certificate is not None:
        _load_chain(context, certificate, key)
    return ClientTls(context, server_name)


def own_port_tls(settings: ListenerSettings) -> ClientTls | None:
    """Make a client's side of TLS with our own port, whose certificate is at hand; None: it speaks none.

    Where the port asks for client certificates, its own is shown, which `listener.tls_client_ca` must have signed.

    Raises:
        ConfigError: as `tls_context`.
    """
    if settings.tls_certificate is None:
        return None
    shown = (settings.tls_certificate, settings.tls_key) if settings.tls_client_ca is not None else (None, None)
    return client_tls(settings.tls_certificate, *shown, server_name="")


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Load a certificate and its key; none of the two may ask for a passphrase: nobody is there to type it."""
    for path in (certificate, key):
        _check_readable(path)
    where = f"in {key}" if key is not None else "in the same file"
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"The key {where} is not that of the certificate {certificate}.") from error
        raise ConfigError(
            f"{certificate} cannot be used. Expected a PEM certificate, and {where} its private key without passphrase."
        ) from error


def _load_authority(context: ssl.SSLContext, authority: Path) -> None:
    _check_readable(authority)
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise ConfigError(f"{authority} holds no certificate of an authority, PEM.") from error


def _check_readable(path: Path | None) -> None:
    try:
        if path is not None:
            path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error


def certificates_of(listener: ListenerSettings, reconcile: ReconcileSettings) -> dict[str, Path]:
    """Give the certificates that are set, by the name of their setting."""
    named = {
        "listener.tls_certificate": listener.tls_certificate,
        "listener.tls_client_ca": listener.tls_client_ca,
        "reconcile.tls_ca": reconcile.tls_ca,
        "reconcile.tls_certificate": reconcile.tls_certificate,
    }
    return {setting: path for setting, path in named.items() if path is not None}


def days_left(certificate: Path, *, now: float | None = None) -> float:
    """Give the days until a PEM certificate expires; negative if it has.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        decoded: dict[str, Any] = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"The certificate cannot be read: {type(error).__name__}.") from error
    expires_at = ssl.cert_time_to_seconds(str(decoded["notAfter"]))
    return (expires_at - (time.time() if now is None else now)) / DAY_S
