"""pynetdicom's upper layer, reading data where it arrives instead of passing it through three queues.

Negotiation, release, abort and the state machine stay pynetdicom's. What is leaned on (its state and event names, the
methods overridden here) is guarded by tests/dicom_listener/test_pynetdicom_contract.py.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_AC

from dicom_listener.acceptance import encoded_acceptance
from dicom_listener.incoming_bytes import PeerGone, limit_calls
from dicom_listener.incoming_pdus import IncomingPdus
from dicom_listener.messages import MessageReader
from dicom_listener.pdu import ProtocolError
from dicom_listener.proposals import AssociationRequest
from dicom_listener.recurring import RecurringLog

A_ASSOCIATE_RQ = 1
DISCARD_BYTES = 65536  # read and forgotten at a time while the peer is to close
LINGER_S = 0.5  # for a peer to close after its release or our abort; then we close
POLL_MAX_S = 1.0  # the longest sleep; everything that matters wakes it earlier

READY_TO_TRANSFER = "Sta6"  # pynetdicom's names of states and events, PS3.8 9.2
AWAITING_CLOSE = "Sta13"
AWAITING_REQUEST = "Sta2"
CONNECTION_CLOSED = "Evt17"
INVALID_PDU = "Evt19"
ASSOCIATION_REQUESTED = "Evt6"
ARTIM_EXPIRED = "Evt18"

recurring = RecurringLog()


class UpperLayer(DULServiceProvider):  # type: ignore[misc]
    """The upper layer of one association, as acceptor.

    Args:
        association: its parent.
        make_reader: makes what takes the messages; called once, with this upper layer.
    """

    def __init__(self, association: Any, make_reader: Callable[[UpperLayer], MessageReader]) -> None:
        super().__init__(association)
        self._wake_end, self._woken_end = socket.socketpair()
        self._wake_end.setblocking(False)
        self._woken_end.setblocking(False)
        self._poller = select.poll()
        self._polled: socket.socket | None = None
        self._linger_until: float | None = None  # monotonic clock
        self._abort_asked = False
        self._reader = make_reader(self)
        self._incoming = IncomingPdus(association.ae.maximum_pdu_size, self._reader)
        self.daemon = True  # a process that is told to end must not wait for a peer

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive for the peer, and wake the reactor to send it."""
        super().send_pdu(primitive)
        self.wake()

    def _send(self, pdu: Any) -> None:
        """Encode and send a PDU of pynetdicom's."""
        if self.socket is not None and isinstance(pdu, A_ASSOCIATE_AC):
            self.socket.send(encoded_acceptance(pdu))
        else:
            super()._send(pdu)

    def kill_dul(self) -> None:
        """End the reactor."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """End the reactor if the association is over; True if it has ended."""
        self.wake()
        return bool(super().stop_dul())

    def abort_now(self) -> None:
        """Let the reactor send an A-ABORT and end, whatever state it is in, also where it waits for the rest of a PDU.

        pynetdicom's own abort asks the state machine of an association that is established, which it knows of only some
        time after the peer was told.
        """
        self._abort_asked = True
        connection = self.socket.socket if self.socket is not None else None
        if connection is not None:
            with suppress(OSError):  # it has closed meanwhile
                socket.socket.shutdown(connection, socket.SHUT_RD)  # TLS too must still be able to write
        self.wake()

    def wake(self) -> None:
        """Let the reactor look at its queues."""
        try:
            self._wake_end.send(b"\0")
        except OSError:  # full: it will wake anyway; closed: it has ended
            return

    def send_at_once(self, pdu: bytes) -> None:
        """Send from the reactor's own thread.

        Raises:
            PeerGone: the connection is closed.
        """
        if self.socket is None or self.socket.socket is None:
            raise PeerGone
        try:
            self.socket.socket.sendall(pdu)
        except OSError as error:
            raise PeerGone from error

    def run_reactor(self) -> None:
        """Serve socket, queues and timers until the association is over, asleep while there is nothing to do."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            self._poller.register(self._woken_end, select.POLLIN)
            self._shake_hands()
            self._limit_sending()
            while not self._kill_thread:
                self._turn()
        finally:
            self._reader.close()
            self._wake_end.close()
            self._woken_end.close()
            if self.socket is not None and self.socket.socket is not None:
                self.socket.close()
            if self.assoc.requestor.primitive is None:
                self.to_user_queue.put(None)  # the association would wait for a request until its time is up
            self.assoc.wake()

    def _shake_hands(self) -> None:
        """Make the TLS handshake, where there is TLS."""
        connection = self.socket.socket if self.socket is not None else None
        if not isinstance(connection, ssl.SSLSocket):
            return
        try:
            connection.settimeout(self.assoc.acse_timeout)
            connection.do_handshake()
        except OSError as error:
            recurring.warning("tls_handshake_failed", association=self.assoc.number, error_type=type(error).__name__)
            self.socket.close()
            self._kill_thread = True

    def _limit_sending(self) -> None:
        """Let a peer that takes no bytes hold nothing up for longer than the network timeout."""
        if self.socket is not None and self.socket.socket is not None:
            self.socket.socket.settimeout(None)
            limit_calls(self.socket.socket, socket.SO_SNDTIMEO, self.assoc.network_timeout or POLL_MAX_S)

    def _turn(self) -> None:
        """Do one event, as pynetdicom's own loop does."""
        if self._abort_asked:
            self._give_up()
            return
        try:
            if self.artim_timer.expired:
                self.event_queue.put(ARTIM_EXPIRED)
            # an event that waits comes first: data behind a release must not be taken
            if self.event_queue.empty() and not self._process_recv_primitive() and self._is_transport_event():
                self._idle_timer.restart()
            if not self.event_queue.empty():
                self.state_machine.do_action(self.event_queue.get(block=False))
                self.assoc.wake()
        except Exception:  # noqa: BLE001 - whatever a peer can provoke must end its association and nothing else
            recurring.error("association_failed", association=self.assoc.number)
            self._give_up()

    def _process_recv_primitive(self) -> bool:
        """Make an event of what is to be sent; an answer to a peer that was aborted meanwhile is dropped."""
        if self.state_machine.current_state != AWAITING_CLOSE:
            return bool(super()._process_recv_primitive())
        while not self.to_provider_queue.empty():
            self.to_provider_queue.get(block=False)
        return False

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == AWAITING_CLOSE:
            return self._linger()
        if not self._incoming.at_hand and not self._reader.inside_message and not self._wait_for_something():
            return False  # inside a message the next read waits by itself, and spares a call
        self._read_pdu_data()
        return True

    def _wait_for_something(self) -> bool:
        """Sleep until the socket has data; False: there is something else to look at."""
        connection = self._connection()
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        ready = [descriptor for descriptor, _ in self._poller.poll(self._sleep_s() * 1000)]
        if self._woken_end.fileno() in ready:
            self._woken_end.recv(4096)
        return connection is not None and connection.fileno() in ready

    def _connection(self) -> socket.socket | None:
        """Give the socket, which is polled from now on; None once it is closed."""
        connection = self.socket.socket if self.socket is not None else None
        if connection is not self._polled:
            self._poller = select.poll()  # a closed socket has no descriptor left to take out
            self._poller.register(self._woken_end, select.POLLIN)
            if connection is not None:
                self._poller.register(connection, select.POLLIN)
            self._polled = connection
        return connection

    def _sleep_s(self) -> float:
        if not self.event_queue.empty() or not self.to_provider_queue.empty():
            return 0.0
        running = self.artim_timer._start_time is not None and self.artim_timer._end_time is None
        return max(0.0, min(POLL_MAX_S, self.artim_timer.remaining if running else POLL_MAX_S))

    def _read_pdu_data(self) -> None:
        """Read one PDU, and those that end its message; a C-STORE is done with then, all else is pynetdicom's event."""
        try:
            self._read_pdu()
            while self._reader.inside_message and self._is_undisturbed:
                self._idle_timer.restart()
                self._read_pdu()
        except PeerGone:
            if not self._abort_asked:  # else the peer is still there, and is told at the next turn
                self.event_queue.put(CONNECTION_CLOSED)
        except ProtocolError as error:
            recurring.warning("protocol_error", association=self.assoc.number, reason=str(error))
            self.event_queue.put(INVALID_PDU)

    @property
    def _is_undisturbed(self) -> bool:
        """Whether nothing else is to be done first."""
        return not (self._abort_asked or self.event_queue.queue or self.to_provider_queue.queue)

    def _read_pdu(self) -> None:
        connection = self.socket.socket if self.socket is not None else None
        if connection is None:
            raise PeerGone
        state = self.state_machine.current_state
        pdu = self._incoming.read(
            connection, patience_s=self._patience_s(state), may_bring_data=state == READY_TO_TRANSFER
        )
        if pdu is None:
            return
        try:
            decoded, event = self._decode_pdu(pdu)
        except Exception as error:
            raise ProtocolError(f"a PDU of type {pdu[0]} that cannot be decoded") from error
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)

    def _decode_pdu(self, bytestream: bytes) -> tuple[Any, str]:
        if bytestream[0] != A_ASSOCIATE_RQ:
            return super()._decode_pdu(bytestream)  # type: ignore[no-any-return]
        request = AssociationRequest()
        request.decode(bytestream)
        return request, ASSOCIATION_REQUESTED

    def _patience_s(self, state: str) -> float:
        """Give how long the rest of a PDU may take, once its first byte is here."""
        waiting = state == AWAITING_REQUEST
        return float((self.assoc.acse_timeout if waiting else self.assoc.network_timeout) or POLL_MAX_S)

    def _linger(self) -> bool:
        """Parse nothing after an abort or release: read and forget until the peer closes, but not for long.

        To close at once, with data unread, would take our last words from the peer again (RFC 1122 4.2.2.13).
        """
        if self._linger_until is None:
            self._linger_until = time.monotonic() + LINGER_S
        connection = self.socket.socket if self.socket is not None else None
        left_s = self._linger_until - time.monotonic()
        try:
            if connection is not None and left_s > 0:
                connection.settimeout(left_s)
                if connection.recv(DISCARD_BYTES):
                    return True
        except OSError:
            pass
        if self.socket is not None:
            self.socket.close()
        return True

    def _give_up(self) -> None:
        """Abort without the state machine."""
        if self.socket is not None and self.socket.socket is not None:
            self.socket.send(b"\x07\0\0\0\0\x04\0\0\x02\0")  # A-ABORT, source: service provider
            self.socket.close()
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = self._kill_thread = True
