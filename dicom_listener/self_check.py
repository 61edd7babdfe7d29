"""Tries what a listener needs before it is pointed at by a PACS: each check says what was found and what to mend."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from dicom_listener.checks import Check, Grade
from dicom_listener.disk import Disk
from dicom_listener.listener import CONNECTIONS_PER_ASSOCIATION, LOCK_FILE
from dicom_listener.peer import PeerUnreachable, own_port
from dicom_listener.self_check_storage import kept_checks, ledger_checks, storage_checks
from dicom_listener.senders import Senders
from dicom_listener.sending import verify
from dicom_listener.tls import EXPIRES_SOON_DAYS, certificates_of, days_left, pacs_tls, tls_context
from triage.errors import ConfigError
from triage.settings import ListenerSettings, ReconcileSettings, Settings

PRIVILEGED_PORTS = 1024
DESCRIPTORS_PER_CONNECTION = 3  # the socket, and a pair that wakes its thread
OTHER_DESCRIPTORS = 64  # ledger, files being written, logs
ECHO_S = 5.0


def self_check(settings: Settings, *, disk: Disk | None = None) -> list[Check]:
    """Try everything; a running listener on the same folder is left alone."""
    running = _is_running(settings.storage.folder)
    checks = [
        _ae_title(settings.listener),
        *storage_checks(settings.storage, settings.listener, disk or Disk()),
        *ledger_checks(settings.storage),
        *kept_checks(settings.storage, settings.listener),
        *_senders(settings.listener),
        _dicom_port(settings, running=running),
        *_times(settings.listener),
        *_metrics_port(settings.listener, running=running),
        *_tls(settings),
        _descriptors(settings.listener),
    ]
    if running:
        checks.insert(0, Check("listener", Grade.GOOD, "one runs on this storage folder"))
    return checks


def has_fault(checks: list[Check]) -> bool:
    """Whether a listener would not work."""
    return any(check.grade is Grade.FAULT for check in checks)


def _ae_title(settings: ListenerSettings) -> Check:
    """PS3.5 6.2, VR AE: 16 characters of the default repertoire but backslash and control characters."""
    title = settings.ae_title
    wrong = sorted({character for character in title if not " " <= character <= "~" or character == "\\"})
    if wrong or not title.strip():
        found = f"{title!r} has {', '.join(map(repr, wrong))}" if wrong else "it is blank"
        return Check("AE title", Grade.FAULT, found, "listener.ae_title: 1 to 16 of A to Z, 0 to 9, _ and -")
    if title != title.strip() or title != title.upper():
        mend = "listener.ae_title: many PACS know capitals only, and drop blanks at the ends"
        return Check("AE title", Grade.DOUBTFUL, repr(title), mend)
    if not settings.require_called_ae_title:
        mend = "listener.require_called_ae_title = true, once the PACS calls it by its name"
        return Check("AE title", Grade.DOUBTFUL, f"{title}, but any other is answered as well", mend)
    return Check("AE title", Grade.GOOD, title)


def _senders(settings: ListenerSettings) -> Iterator[Check]:
    try:
        Senders(settings)
    except ConfigError as error:
        yield Check("senders", Grade.FAULT, str(error), "[[listener.senders]]")
        return
    if settings.only_known_senders and not settings.senders:
        mend = "[[listener.senders]] ae_title = ..., one for each, or listener.only_known_senders = false"
        yield Check("senders", Grade.FAULT, "only known ones may send, and none is known", mend)
        return
    in_the_clear = [each.ae_title for each in settings.senders if each.passcode_hash]
    if in_the_clear and settings.tls_certificate is None:
        found = f"the passcode of {', '.join(in_the_clear)} crosses the network in the clear"
        yield Check("senders", Grade.DOUBTFUL, found, "listener.tls_certificate")
    elif settings.senders:
        yield Check("senders", Grade.GOOD, f"{len(settings.senders)} known")


def _dicom_port(settings: Settings, *, running: bool) -> Check:
    listener = settings.listener
    what = f"DICOM port {listener.port}"
    if not running:
        return _bind(what, listener.host, listener.port, "listener.port")
    try:
        verify(own_port(settings, "ICHCHECK"), timeout_s=ECHO_S)
    except (PeerUnreachable, ConfigError) as error:
        mend = "start the listener anew: it runs with other settings, or hangs"
        return Check(what, Grade.FAULT, f"a listener runs, but {error}", mend)
    tls = ", by TLS" if listener.tls_certificate is not None else ""
    return Check(what, Grade.GOOD, f"the running listener answers C-ECHO{tls}")


def _metrics_port(settings: ListenerSettings, *, running: bool) -> Iterator[Check]:
    if settings.metrics_port is None:
        yield Check("metrics port", Grade.DOUBTFUL, "none: nobody is told when the disk fills",
                    "listener.metrics_port, for a monitoring host")  # fmt: skip
    elif not running:
        yield _bind(f"metrics port {settings.metrics_port}", settings.metrics_host, settings.metrics_port,
                    "listener.metrics_port")  # fmt: skip


def _times(settings: ListenerSettings) -> Iterator[Check]:
    """Whether the waits of completion make sense together."""
    if settings.cap_s < settings.quiet_period_s:
        found = f"with slices missing after {settings.cap_s:g} s, with none after {settings.quiet_period_s:g} s"
        yield Check("completion", Grade.DOUBTFUL, found, "listener.cap_s above listener.quiet_period_s")
    if settings.moved_on_s < settings.settle_s:
        found = f"{settings.moved_on_s:g} s while the association is open, {settings.settle_s:g} s after its release"
        yield Check("completion", Grade.DOUBTFUL, found, "listener.moved_on_s above listener.settle_s")


def _bind(what: str, host: str, port: int, setting: str) -> Check:
    """Try to open a port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return Check(what, Grade.FAULT, f"cannot be opened on {host}: {error.strerror}", _mend_of(error, port, setting))
    return Check(what, Grade.GOOD, f"free on {host}" if port else f"any free one on {host}")


def _mend_of(error: OSError, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"end what uses it (ss -ltnp 'sport = :{port}'), or choose another with {setting}"
    if error.errno in (errno.EACCES, errno.EPERM) and port < PRIVILEGED_PORTS:
        return f"give the service CAP_NET_BIND_SERVICE, or choose {setting} = {PRIVILEGED_PORTS} or more"
    return f"{setting.replace('port', 'host')}: an address of this host, or 0.0.0.0 for all of them"


def _tls(settings: Settings) -> Iterator[Check]:
    """Try the files of TLS, of the port and towards the PACS."""
    for what, section, make in (("TLS", "listener", lambda: tls_context(settings.listener)),
                                ("TLS of reconcile", "reconcile", lambda: pacs_tls(settings.reconcile))):  # fmt: skip
        try:
            make()
        except ConfigError as error:
            yield Check(what, Grade.FAULT, str(error), f"{section}.tls_...: PEM files that this user may read")
    for setting, path in certificates_of(settings.listener, settings.reconcile).items():
        yield from _certificate(setting, path)
    for key in {_key(settings.listener), _key(settings.reconcile)} - {None}:
        if key is not None and key.exists() and key.stat().st_mode & 0o077:
            yield Check("TLS key", Grade.DOUBTFUL, "other users of this host may read it", f"chmod 600 {key}")


def _key(section: ListenerSettings | ReconcileSettings) -> Path | None:
    return section.tls_key or section.tls_certificate


def _certificate(setting: str, path: Path) -> Iterator[Check]:
    try:
        days = days_left(path)
    except ConfigError:
        return  # said already
    expired, soon = days < 0, days < EXPIRES_SOON_DAYS
    yield Check(f"{setting}, {path.name}", Grade.FAULT if expired else Grade.DOUBTFUL if soon else Grade.GOOD,
                f"expired {-days:.0f} days ago" if expired else f"expires in {days:.0f} days",
                "a new certificate" if soon else "")  # fmt: skip


def _descriptors(settings: ListenerSettings) -> Check:
    """Whether the process may open as many files as its connections can need."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = CONNECTIONS_PER_ASSOCIATION * settings.max_associations
    needed = DESCRIPTORS_PER_CONNECTION * connections + OTHER_DESCRIPTORS
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return Check("open files", Grade.GOOD, f"{allowed} allowed, {needed} needed at most")
    mend = f"LimitNOFILE={needed} in the service, ulimit -n {needed}, or fewer listener.max_associations"
    return Check("open files", Grade.DOUBTFUL, f"{allowed} allowed; {connections} idle connections need {needed}", mend)


def _is_running(folder: Path) -> bool:
    """Whether a listener holds the storage folder."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # none, or not ours to open: the other checks say so
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
