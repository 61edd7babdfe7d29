"""TLS on the C-STORE port: the Non-Downgrading BCP 195 profile (PS3.15 B.12), with client certificates where asked."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

from triage.errors import ConfigError
from triage.settings import ListenerSettings

# TLS 1.2 suites of RFC 9325 4.2; those of TLS 1.3 are all fine
CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}" for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384") for key in ("ECDSA", "RSA")
)
DAY_S = 86400.0


def tls_context(settings: ListenerSettings) -> ssl.SSLContext | None:
    """Make the server's side of TLS; None: it is not set.

    Raises:
        ConfigError: certificate, key or authority cannot be read, or do not belong together.
    """
    if settings.tls_certificate is None:
        if settings.tls_key is not None or settings.tls_client_ca is not None:
            raise ConfigError("listener.tls_key and listener.tls_client_ca need listener.tls_certificate.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The TLS files cannot be used: {error.strerror or type(error).__name__}. Expected PEM files in "
            "listener.tls_certificate, listener.tls_key (if apart) and listener.tls_client_ca (if clients need one)."
        ) from error
    return context


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
