"""pynetdicom's association, woken by events instead of polling, with images taken in the upper layer's own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_listener.arrivals import Arrivals
from dicom_listener.contexts import is_storage
from dicom_listener.incoming_data import IncomingData
from dicom_listener.messages import MessageReader
from dicom_listener.pdu import Command, ProtocolError
from dicom_listener.receiver import Answer, Receiver, StoreRequest
from dicom_listener.upper_layer import UpperLayer

LOOK_EVERY_S = 0.5  # for the idle timer; everything else wakes the reactor


@dataclass(frozen=True)
class Services:
    """What the associations of one listener share."""

    receiver: Receiver
    arrivals: Arrivals


class TriageAssociation(Association):  # type: ignore[misc]
    """One association with a sender.

    Args:
        ae: the application entity.
        number: counts the associations of this process; what stands in log lines.
        services: what takes its images.
    """

    is_established: bool
    is_released: bool
    is_aborted: bool

    def __init__(self, ae: AE, number: int, services: Services) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.number = number
        self._services = services
        self._wake = threading.Event()
        self.dul = UpperLayer(self, self._make_reader)
        # these setters pass the values on to the timers of the upper layer, which is new
        self.acse_timeout, self.network_timeout = self.ae.acse_timeout, self.ae.network_timeout

    @property
    def is_over(self) -> bool:
        """Whether it was released, aborted or rejected, though its connection may linger."""
        return self.is_released or self.is_aborted or bool(self.is_rejected)

    def wake(self) -> None:
        """Let the reactor look at its queues."""
        self._wake.set()

    def run_reactor(self) -> None:
        """Run the association, and note its end however it ends."""
        try:
            super().run_reactor()
        finally:
            self._note_end()

    def kill(self) -> None:
        """End the association's threads."""
        self._kill = True
        self.wake()
        super().kill()

    def begin(self, command: Command, context_id: int) -> IncomingData | None:
        """Make room for the data set of a C-STORE; None: the context is not for storage."""
        context = self._accepted_cx[context_id]
        if not is_storage(str(context.abstract_syntax)):
            return None
        return self._services.receiver.begin(self._request(command, context_id))

    def end(self, command: Command, context_id: int, data: IncomingData) -> Answer:
        """Keep a data set and give its status."""
        return self._services.receiver.take(self._request(command, context_id), data)

    def refused(self, answer: Answer) -> None:
        """Count a request that was answered without a whole data set."""
        self._services.receiver.refused(answer)

    def _request(self, command: Command, context_id: int) -> StoreRequest:
        return StoreRequest(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=str(self._accepted_cx[context_id].transfer_syntax[0]),
            calling_ae_title=self.requestor.ae_title,
            called_ae_title=self.acceptor.ae_title,
            association=self.number,
        )

    def _make_reader(self, upper_layer: UpperLayer) -> MessageReader:
        return MessageReader(
            self,
            send=upper_layer.send_at_once,
            pass_on=self._pass_on,
            is_accepted=lambda context_id: context_id in self._accepted_cx,
        )

    def _pass_on(self, primitive: Any) -> None:
        try:
            self.dimse.receive_primitive(primitive)
        except Exception as error:
            raise ProtocolError("a request that cannot be decoded") from error
        self.wake()

    def _run_reactor(self) -> None:
        """Serve requests other than C-STORE, release, abort and the idle timer, as pynetdicom's loop does."""
        while not self._kill:
            self._is_paused = True  # a request of our own may go out on this association now
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            self._reactor_checkpoint.wait()
            self._is_paused = False
            if not self._reactor_checkpoint.is_set():
                continue  # it has just gone out: its answer is not ours to take
            self._serve_waiting()
            if self._has_ended():
                return

    def _note_end(self) -> None:
        """Tell completion that no more images come; the second time does nothing."""
        self._services.arrivals.association_ended(self.number, aborted=not self.is_released, now=time.time())

    def _serve_waiting(self) -> None:
        while True:
            context_id, message = self.dimse.get_msg(block=False)
            if not message:
                return
            self._serve_request(message, context_id)

    def _has_ended(self) -> bool:
        """Whether the association is over; answers a release, and aborts a silent peer."""
        if self.is_established and self.acse.is_release_requested():
            self._wake.clear()
            self.acse.send_release(is_response=True)
            self._wake.wait(LOOK_EVERY_S)  # until it is sent: what follows would keep Python's lock from who sends it
            self.is_released, self.is_established = True, False
            self._note_end()  # not when the peer has closed: completion waits for it
            evt.trigger(self, evt.EVT_RELEASED, {})
        elif self.acse.is_aborted():
            self.dul.receive_pdu(wait=False)
            self.is_aborted, self.is_established = True, False
            evt.trigger(self, evt.EVT_ABORTED, {})
        elif self.dul.is_alive() and self.dul.idle_timer_expired():
            self.abort()
        elif self.dul.is_alive():
            return False
        self.kill()
        return True


class ClosingSocket(AssociationSocket):  # type: ignore[misc]
    """pynetdicom's socket, closed also when the peer has gone before the shutdown: each would keep a descriptor."""

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class TriageRequestHandler(RequestHandler):  # type: ignore[misc]
    """Makes a `TriageAssociation` of each connection."""

    def _create_association(self) -> TriageAssociation:
        association = TriageAssociation(self.ae, self.server.next_number(), self.server.services)
        association._server = self.server
        # pynetdicom finds its acceptors by this name
        association.name = f"AcceptorThread@{datetime.now():%Y%m%d%H%M%S}-{association.number}"
        association.set_socket(ClosingSocket(association, client_socket=self.request))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = self.server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        self._bind_handlers(association)
        return association

    def _bind_handlers(self, association: TriageAssociation) -> None:
        for event, handlers in self.server._handlers.items():
            if event.is_intervention and handlers:
                association.bind(event, *handlers)
            elif isinstance(event, evt.NotificationEvent):
                for handler, arguments in handlers:
                    association.bind(event, handler, arguments)


class TriageServer(ThreadedAssociationServer):  # type: ignore[misc]
    """The listening socket."""

    request_queue_size = 128  # connections that wait for accept(); the default of 5 refuses a burst
    daemon_threads = True
    services: Services
    connection_admitted: Callable[[], bool]
    _numbers = 0

    def shutdown(self) -> None:
        """Stop accepting, and close the socket; open associations go on."""
        BaseServer.shutdown(self)
        self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Whether there is room for one more connection."""
        return self.connection_admitted()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; its TLS handshake is made by its own thread, so that no peer can hold up the others."""
        connection, address = self.socket.accept()
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def next_number(self) -> int:
        """Give the next association its number."""
        self._numbers += 1
        return self._numbers


class TriageEntity(AE):  # type: ignore[misc]
    """pynetdicom's application entity, which counts as active what has asked for an association.

    Connections that say nothing would otherwise use up `maximum_associations`, and lock every sender out.
    """

    @property
    def active_associations(self) -> list[Association]:
        """The associations that were asked for and are not over."""
        return [
            item for item in super().active_associations if item.requestor.primitive is not None and not item.is_over
        ]
