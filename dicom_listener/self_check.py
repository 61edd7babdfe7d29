"""Tries what a listener needs before it is pointed at by a PACS: each check says what was found and what to mend."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dicom_listener.disk import Disk
from dicom_listener.instance_store import INCOMING, INSTANCES, QUARANTINE
from dicom_listener.inventory import missing_files
from dicom_listener.listener import CONNECTIONS_PER_ASSOCIATION, LOCK_FILE
from dicom_listener.quarantine import QuarantineRoom
from dicom_listener.senders import Senders
from dicom_listener.sending import Peer, PeerUnreachable, verify
from dicom_listener.tls import days_left, tls_context
from triage.errors import ConfigError, StoreError
from triage.ledger.inspection import inspect_ledger
from triage.settings import ListenerSettings, Settings, StorageSettings

GB = 1e9
PRIVILEGED_PORTS = 1024
EXPIRES_SOON_DAYS = 30.0
SLOW_SYNC_S = 0.05  # three such waits an image make 7 images a second
DESCRIPTORS_PER_CONNECTION = 3  # the socket, and a pair that wakes its thread
OTHER_DESCRIPTORS = 64  # ledger, files being written, logs
ECHO_S = 5.0
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.", "9p", "ceph", "gluster", "lustre", "afs")
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how to reach ourselves there


class Grade(StrEnum):
    """How a check ended."""

    GOOD = "ok"
    DOUBTFUL = "look at it"  # works, but not as well as it should or not for long
    FAULT = "fault"  # a listener would not start, or lose images


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        what: the thing.
        grade: how it ended.
        found: what was seen, with measurements.
        mend: what to do; empty if nothing.
    """

    what: str
    grade: Grade
    found: str
    mend: str = ""


def self_check(settings: Settings, *, disk: Disk | None = None) -> list[Check]:
    """Try everything; a running listener on the same folder is left alone."""
    running = _is_running(settings.storage.folder)
    checks = [
        _ae_title(settings.listener),
        *_storage(settings.storage, settings.listener, disk or Disk()),
        *_ledger(settings.storage),
        *_kept(settings.storage, settings.listener),
        *_senders(settings.listener),
        _dicom_port(settings.listener, running=running),
        *_metrics_port(settings.listener, running=running),
        *_certificates(settings.listener),
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


def _storage(storage: StorageSettings, settings: ListenerSettings, disk: Disk) -> Iterator[Check]:
    folder = storage.folder
    try:
        took_s = _try_writing(folder, disk)
        free = disk.free_bytes(folder)
    except OSError as error:
        mend = f"storage.folder: a folder on a local disk that user {os.getuid()} may write"
        yield Check("storage", Grade.FAULT, f"{folder} cannot be written: {error.strerror}", mend)
        return
    yield _file_systems(folder)
    slow = took_s > SLOW_SYNC_S
    yield Check("durable write", Grade.DOUBTFUL if slow else Grade.GOOD,
                f"write, fsync, rename and fsync of the folder took {took_s * 1000:.1f} ms",
                "a faster disk: each image waits for it before it is acknowledged" if slow else "")  # fmt: skip
    low = free < settings.min_free_bytes
    yield Check("free disk", Grade.FAULT if low else Grade.GOOD,
                f"{free / GB:.1f} GB; images are refused below {settings.min_free_bytes / GB:.1f} GB",
                "make room, or lower listener.min_free_bytes" if low else "")  # fmt: skip


def _try_writing(folder: Path, disk: Disk) -> float:
    """Take a file the way of an image; give the seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in (INCOMING, INSTANCES, QUARANTINE):
        disk.make_folder(folder / part)
    temporary = folder / INCOMING / f"{os.getpid()}-check.part"
    final = folder / QUARANTINE / f"{os.getpid()}-check.tmp"
    began_at = time.perf_counter()
    try:
        disk.write(temporary, [bytes(524288)])
        disk.rename(temporary, final)
        disk.sync_folder(final.parent)
        return time.perf_counter() - began_at
    finally:
        disk.remove(temporary)
        disk.remove(final)


def _file_systems(folder: Path) -> Check:
    devices = {(folder / part).stat().st_dev for part in (INCOMING, INSTANCES, QUARANTINE)}
    if len(devices) > 1:
        mend = "put incoming/, instances/ and quarantine/ on one: a rename between two is no rename"
        return Check("storage", Grade.FAULT, f"{folder} spreads over {len(devices)} file systems", mend)
    kind = _file_system_of(folder.resolve())
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        mend = "storage.folder on a local disk: neither fsync nor the ledger's write-ahead log hold on a network share"
        return Check("storage", Grade.FAULT, f"{folder} is a network share ({kind})", mend)
    return Check("storage", Grade.GOOD, f"{folder.resolve()} on {kind or 'an unknown file system'}")


def _file_system_of(folder: Path) -> str:
    """Give the kind of the mount that a folder is on; empty where the system does not say."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    around = [(len(words[1]), words[2]) for words in mounts if folder.is_relative_to(words[1].replace("\\040", " "))]
    return max(around)[1] if around else ""


def _ledger(storage: StorageSettings) -> Iterator[Check]:
    path = storage.ledger_path
    if not path.exists():
        yield Check("ledger", Grade.GOOD, "none yet; the first start makes it")
        return
    try:
        found = inspect_ledger(path)
    except StoreError as error:
        yield Check("ledger", Grade.FAULT, str(error), f"let user {os.getuid()} write {path}, or restore a copy of it")
        return
    if found.newer:
        mend = "update this host: an older version must not write it"
        yield Check("ledger", Grade.FAULT, f"written by a newer version (steps {', '.join(found.newer)})", mend)
        return
    pending = f"; the next start applies {len(found.pending)} more" if found.pending else ""
    yield Check("ledger", Grade.GOOD,
                f"opens and takes writes; {found.steps} steps, {found.size_bytes / GB:.3f} GB{pending}")  # fmt: skip


def _kept(storage: StorageSettings, settings: ListenerSettings) -> Iterator[Check]:
    """Whether each image of the ledger has its file, and what is in quarantine."""
    if not storage.ledger_path.exists():
        return
    try:
        missing = sum(1 for _ in missing_files(storage.folder, storage.ledger_path))
        room = QuarantineRoom(storage.folder, max_bytes=settings.quarantine_max_bytes,
                              max_objects=settings.quarantine_max_objects)  # fmt: skip
        objects, size = room.kept()
    except (StoreError, OSError):
        return  # the checks of storage and ledger say so
    yield Check("images on disk", Grade.FAULT if missing else Grade.GOOD,
                f"{missing} of the ledger's have no file" if missing else "each of the ledger's has its file",
                "ich-triage storage verify, and send these studies again" if missing else "")  # fmt: skip
    if not objects:
        return
    found = (
        f"{objects} objects, {size / GB:.3f} GB; nothing more is kept beyond {settings.quarantine_max_bytes / GB:g} GB"
    )
    yield Check("quarantine", Grade.DOUBTFUL, found, "ich-triage storage quarantine says why, and removes them")


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


def _dicom_port(settings: ListenerSettings, *, running: bool) -> Check:
    what = f"DICOM port {settings.port}"
    if not running:
        return _bind(what, settings.host, settings.port, "listener.port")
    if settings.tls_certificate is not None:
        return Check(what, Grade.GOOD, "the running listener has it, with TLS")
    host = ANY_HOST.get(settings.host, settings.host)
    try:
        verify(Peer(host, settings.port, settings.ae_title), timeout_s=ECHO_S)
    except PeerUnreachable as error:
        mend = "start the listener anew: it runs with other settings, or hangs"
        return Check(what, Grade.FAULT, f"a listener runs, but {error}", mend)
    return Check(what, Grade.GOOD, "the running listener answers C-ECHO")


def _metrics_port(settings: ListenerSettings, *, running: bool) -> Iterator[Check]:
    if settings.metrics_port is None:
        yield Check("metrics port", Grade.DOUBTFUL, "none: nobody is told when the disk fills",
                    "listener.metrics_port, for a monitoring host")  # fmt: skip
    elif not running:
        yield _bind(f"metrics port {settings.metrics_port}", settings.metrics_host, settings.metrics_port,
                    "listener.metrics_port")  # fmt: skip


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
    return f"{setting.rpartition('.')[0]}: an address of this host"


def _certificates(settings: ListenerSettings) -> Iterator[Check]:
    if settings.tls_certificate is None and settings.tls_key is None and settings.tls_client_ca is None:
        return
    try:
        tls_context(settings)
        left = {path: days_left(path) for path in (settings.tls_certificate, settings.tls_client_ca) if path}
    except ConfigError as error:
        yield Check("TLS", Grade.FAULT, str(error), "three PEM files that belong together, readable by this user")
        return
    for path, days in left.items():
        expired, soon = days < 0, days < EXPIRES_SOON_DAYS
        yield Check(f"TLS, {path.name}", Grade.FAULT if expired else Grade.DOUBTFUL if soon else Grade.GOOD,
                    f"expired {-days:.0f} days ago" if expired else f"expires in {days:.0f} days",
                    "a new certificate" if soon else "")  # fmt: skip
    key = settings.tls_key or settings.tls_certificate
    if key is not None and key.stat().st_mode & 0o077:
        yield Check("TLS key", Grade.DOUBTFUL, "other users of this host may read it", f"chmod 600 {key}")


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
