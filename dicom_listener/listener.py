"""The listener: everything between the C-STORE port and the ledger, started and stopped as one."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import structlog
from pynetdicom import build_context, evt
from pynetdicom._globals import DEFAULT_TRANSFER_SYNTAXES

from dicom_listener.arrivals import Arrivals
from dicom_listener.association import Services, TriageEntity, TriageRequestHandler, TriageServer
from dicom_listener.commitment import CommitmentService
from dicom_listener.completer import Completer
from dicom_listener.completion import CompletionRules
from dicom_listener.contexts import VERIFICATION
from dicom_listener.disk import Disk
from dicom_listener.health import HealthServer
from dicom_listener.instance_store import InstanceStore
from dicom_listener.inventory import Inventory
from dicom_listener.library_settings import set_libraries
from dicom_listener.local_door import LocalDoor
from dicom_listener.metrics import Metrics
from dicom_listener.negotiation import Negotiation
from dicom_listener.own_token import make_token
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.probes import UNKNOWN, Probes
from dicom_listener.quarantine import QuarantineRoom
from dicom_listener.receiver import Receiver
from dicom_listener.recorder import Recorder
from dicom_listener.recovery import mark_alive, recover
from dicom_listener.recurring import RecurringLog
from dicom_listener.senders import Senders
from dicom_listener.tls import certificates_of, tls_context
from triage.errors import ConfigError
from triage.ledger import Ledger, SharedLedger
from triage.ledger.commitments import Commitments
from triage.ledger.intake import Intake
from triage.settings import ListenerSettings, Settings

log = structlog.get_logger()
recurring = RecurringLog()

WORKING_PARTS = (
    "accept",
    "door",
    "completer",
    "commitment",
    "alive",
)  # names of threads that must never end
LOCK_FILE = Path("listener.lock")
ALIVE_EVERY_S = 30.0
ACCEPT_POLL_S = 0.1  # how soon the accepting loop notices that it is to end
CONNECTIONS_PER_ASSOCIATION = 16  # times max_associations: connections in all, most of them idle then
ABORT_S = 1.0  # then, for the A-ABORT to go out to peers that take no bytes
LAST_WORDS_S = 2.0  # at the end, open associations have this long to finish the instance they are sending


class Listener:
    """One C-STORE port on one storage folder.

    Args:
        settings: of storage and listener.
        disk: the file operations.

    Attributes:
        port: the TCP port, known once started.
        metrics_port: that of metrics and health; None: not served.
    """

    def __init__(self, settings: Settings, *, disk: Disk | None = None) -> None:
        self._settings = settings.listener
        self._certificates = certificates_of(settings.listener, settings.reconcile)
        self._folder = settings.storage.folder
        self._disk = disk or Disk()
        self._ledger_path = settings.storage.ledger_path
        self._stopping = threading.Event()
        self._metrics = Metrics()
        self._health: HealthServer | None = None
        self._probes: Probes | None = None
        self.port = 0
        self.metrics_port: int | None = None

    def start(self) -> None:
        """Recover from the last end, then open the port.

        Raises:
            ConfigError: another listener uses the folder, or the port cannot be opened.
            OSError: the storage folder cannot be written.
            StoreError: the ledger cannot be opened.
        """
        store = InstanceStore(self._folder, self._disk)
        store.prepare()
        self._lock = _locked(self._folder / LOCK_FILE)
        self._ledger = Ledger(self._ledger_path)
        self._recording = SharedLedger(self._ledger_path)
        try:
            self._start(store)
        except BaseException:
            self._close_files()
            raise

    def _start(self, store: InstanceStore) -> None:
        settings = self._settings
        self._intake = Intake(self._ledger)
        recovered = recover(self._folder, self._intake, now=time.time())
        log.info("recovered", leftovers=recovered.leftovers_removed, instances=recovered.orphans_registered,
                 quarantined=recovered.orphans_quarantined)  # fmt: skip
        self._arrivals = Arrivals(gap_max_s=settings.quiet_period_s)
        self._senders = Senders(settings, token=make_token(self._folder))
        self._recorder = Recorder(Intake(self._recording))
        self._quarantine = QuarantineRoom(
            self._folder, max_bytes=settings.quarantine_max_bytes, max_objects=settings.quarantine_max_objects
        )
        self._inventory = Inventory(self._folder, self._ledger_path)
        self._receiver = Receiver(
            store,
            self._recorder,
            self._arrivals,
            self._senders,
            self._metrics,
            self._quarantine,
            min_free_bytes=settings.min_free_bytes,
            max_object_bytes=settings.max_object_bytes,
        )
        self._completer = Completer(self._intake, self._arrivals, self._rules_of, self._metrics)
        self._commitment = CommitmentService(
            Commitments(self._ledger), self._folder, self._senders, ae_title=settings.ae_title
        )
        self._server = self._open_port()
        self._register_gauges()
        self._open_health()
        self._door = self._open_door()
        self._completer.start()
        self._commitment.start()
        self._inventory.start()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(ACCEPT_POLL_S,), name="accept", daemon=True),
            threading.Thread(target=self._mark_alive, name="alive", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._door.start()
        if self._health is not None:
            self._health.start()
        log.info("listening", port=self.port)

    def stop(self) -> None:
        """Close the port, let what is being sent end or abort it, and end all threads."""
        self._stopping.set()
        if self._health is not None:
            self._health.stop()
        self._server.shutdown()
        self._door.stop()
        self._end_associations()
        self._completer.stop()
        self._commitment.stop()
        self._inventory.stop()
        self._recorder.stop()
        for thread in self._threads:
            thread.join()
        mark_alive(self._folder)
        self._close_files()
        log.info("stopped")

    def _close_files(self) -> None:
        if self._probes is not None:
            self._probes.stop()
        self._recording.close()
        self._ledger.close()
        os.close(self._lock)

    def _open_port(self) -> TriageServer:
        settings = self._settings
        negotiation = Negotiation(self._senders, self._arrivals, self._metrics)
        set_libraries()
        try:
            server: TriageServer = _application_entity(settings).make_server(
                (settings.host, settings.port),
                ae_title=settings.ae_title,
                ssl_context=tls_context(settings),
                contexts=[build_context(VERIFICATION, DEFAULT_TRANSFER_SYNTAXES)],
                evt_handlers=[*negotiation.handlers(), (evt.EVT_N_ACTION, self._commitment.asked)],
                server_class=TriageServer,
                request_handler=TriageRequestHandler,
            )
        except OSError as error:
            raise ConfigError(
                f"Port {settings.port} on {settings.host} cannot be opened: {error.strerror}. "
                "Choose another with listener.port, or end what uses it."
            ) from error
        server.services = Services(self._receiver, self._arrivals)
        server.connection_admitted = self._connection_admitted
        self.port = server.server_address[1]
        return server

    def _register_gauges(self) -> None:
        gauge = self._metrics.gauge
        gauge("ich_listener_associations_open", "associations open now", self._arrivals.open_count)
        gauge("ich_listener_disk_free_bytes", "bytes that may still be written", self._receiver.free_bytes)
        gauge("ich_listener_missing_files", "images of the ledger without a file", self._missing_files)
        gauge("ich_listener_quarantined_bytes", "bytes of data in quarantine", lambda: self._quarantine.kept()[1])

    def _missing_files(self) -> float:
        return UNKNOWN if self._inventory.missing is None else self._inventory.missing

    def _open_health(self) -> None:
        settings = self._settings
        if settings.metrics_port is None:
            return
        try:
            address = (settings.metrics_host, settings.metrics_port)
            self._probes = Probes(self._folder, self._disk, self._ledger, settings, self._certificates)
            self._probes.register(self._metrics)
            self._health = HealthServer(address, self._metrics, self._ailments, self._notes, self._probes.not_ready)
        except OSError as error:
            self._server.server_close()
            raise ConfigError(
                f"Port {settings.metrics_port} on {settings.metrics_host} cannot be opened for metrics: "
                f"{error.strerror}. Choose another with listener.metrics_port."
            ) from error
        self.metrics_port = self._health.port

    def _open_door(self) -> LocalDoor:
        settings = self._settings
        try:
            return LocalDoor(
                self._folder,
                self._receiver,
                self._arrivals,
                self._server.next_number,
                most=settings.max_associations,
                timeout_s=settings.network_timeout_s,
            )
        except OSError as error:
            self._server.server_close()
            raise ConfigError(
                f"No socket can be made in the storage folder: {error.strerror}. It must lie on a local disk that "
                "takes Unix sockets, and belong to this user."
            ) from error

    def _ailments(self) -> list[str]:
        """Give what is wrong with this listener, in words."""
        alive = [thread.name for thread in threading.enumerate()]
        ailments = [f"its part '{name}' has ended" for name in WORKING_PARTS if name not in alive]
        if self._receiver.disk_is_low():
            ailments.append("the disk is nearly full: images are refused")
        return ailments

    def _notes(self) -> list[str]:
        """Give what a person should look at, in words."""
        notes = []
        if self._inventory.missing:
            notes.append(f"{self._inventory.missing} images have no file: ich-triage storage verify")
        if self._quarantine.is_full():
            notes.append("the quarantine is full: ich-triage storage quarantine")
        return notes + (self._probes.expiring() if self._probes is not None else [])

    def _rules_of(self, calling_ae_title: str) -> CompletionRules:
        rules = completion_rules(self._settings)
        quiet_period_s = self._senders.of(calling_ae_title).quiet_period_s
        return rules if quiet_period_s is None else replace(rules, quiet_period_s=quiet_period_s)

    def _connection_admitted(self) -> bool:
        """Whether one more connection fits; connections without association are bounded as well."""
        admitted = len(self._server.active_associations) < CONNECTIONS_PER_ASSOCIATION * self._settings.max_associations
        if not admitted:
            recurring.warning("connection_refused", reason="too many connections without association")
        return admitted

    def _mark_alive(self) -> None:
        while not self._stopping.wait(ALIVE_EVERY_S):
            mark_alive(self._folder)

    def _end_associations(self) -> None:
        deadline = time.monotonic() + LAST_WORDS_S
        while self._server.ae.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        ending = [association.dul for association in self._server.active_associations]
        for upper_layer in ending:
            upper_layer.abort_now()
        deadline = time.monotonic() + ABORT_S
        for upper_layer in ending:
            upper_layer.join(max(0.0, deadline - time.monotonic()))


def completion_rules(settings: ListenerSettings) -> CompletionRules:
    """Give the rules of completion as they are set."""
    return CompletionRules(
        settle_s=settings.settle_s,
        moved_on_s=settings.moved_on_s,
        quiet_period_s=settings.quiet_period_s,
        cap_s=settings.cap_s,
        head_coverage_mm=settings.head_coverage_mm,
    )


def _application_entity(settings: ListenerSettings) -> TriageEntity:
    ae = TriageEntity(ae_title=settings.ae_title)
    ae.require_called_aet = settings.require_called_ae_title
    ae.maximum_associations = settings.max_associations
    ae.maximum_pdu_size = settings.max_pdu_bytes
    ae.network_timeout = settings.network_timeout_s
    ae.acse_timeout = settings.negotiation_timeout_s
    ae.dimse_timeout = settings.network_timeout_s
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return ae


def _locked(path: Path) -> int:
    """Hold the storage folder for this process alone: start-up recovery removes what others would be writing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            "Another listener uses the storage folder. End it, or give this one a folder of its own (storage.folder)."
        ) from error
    return descriptor
