"""A connection to an endpoint: gRPC's options for messages of megabytes and for servers that restart, and TLS."""

from __future__ import annotations

from pathlib import Path

import grpc

from triage.errors import ConfigError
from triage.settings import WorkerSettings

CHANNEL_OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),  # every address that a name resolves to
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),  # gRPC's default of 4 MiB is less than the reply to one head
    ("grpc.default_compression_algorithm", 0),  # none: CT noise does not compress, and gzip costs more than the wire
    ("grpc.keepalive_time_ms", 310_000),  # servers close a connection that pings more often than every 300 s
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # a restarted server is found again within seconds, not minutes
)
SERVER_NAME = "grpc.ssl_target_name_override"


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None, *, server_name: str = ""
) -> grpc.Channel:
    """Open a connection; it is made when it is first used.

    Args:
        target: gRPC target of one endpoint.
        credentials: TLS; None speaks plain text.
        server_name: name that the endpoint's certificate must have; empty: the target's own.
    """
    if credentials is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    name = ((SERVER_NAME, server_name),) if server_name else ()
    return grpc.secure_channel(target, credentials, options=(*CHANNEL_OPTIONS, *name))


def targets_of(endpoint: str) -> list[str]:
    """Split `endpoint` at its commas; gRPC's own lists of addresses (`ipv4:a:1,b:2`) stay one target.

    Raises:
        ConfigError: nothing is there.
    """
    if endpoint.startswith(("ipv4:", "ipv6:")):
        return [endpoint]
    targets = [target.strip() for target in endpoint.split(",") if target.strip()]
    if not targets:
        raise ConfigError("No endpoint is given; expected at least one host:port.")
    return targets


def worker_credentials(settings: WorkerSettings) -> grpc.ChannelCredentials | None:
    """Give the credentials that a worker's settings ask for; None: plain text.

    Raises:
        ConfigError: a file cannot be read, or files are named while `tls` is off.
    """
    files = (settings.tls_authority, settings.tls_certificate, settings.tls_key)
    if settings.tls:
        return tls_credentials(*files)
    if any(file is not None for file in files) or settings.tls_server_name:
        raise ConfigError(
            "worker.tls is off and another TLS setting is given: the endpoint would be spoken to in plain text. "
            "Set worker.tls = true, or take the others out."
        )
    return None


def tls_credentials(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Give credentials for TLS, and with certificate and key for mutual TLS.

    Args:
        authority: PEM of who signed the endpoint's certificate; None: the authorities known to gRPC.
        certificate: PEM of our own certificate.
        key: PEM of our own key.

    Raises:
        ConfigError: a file cannot be read, or one of certificate and key is missing.
    """
    if (certificate is None) != (key is None):
        raise ConfigError("Mutual TLS needs a certificate and its key; only one of the two is given.")
    try:
        authority_pem, key_pem, certificate_pem = (
            path.read_bytes() if path is not None else None for path in (authority, key, certificate)
        )
    except OSError as error:
        raise ConfigError(f"A TLS file cannot be read: {error.strerror}: {error.filename}.") from error
    return grpc.ssl_channel_credentials(authority_pem, key_pem, certificate_pem)
