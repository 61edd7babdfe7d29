"""pynetdicom's association, with what a receiver adds: its number, and storage of classes pynetdicom does not know."""

from __future__ import annotations

import time
from datetime import datetime
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_listener.contexts import is_storage

if TYPE_CHECKING:
    from dicom_listener.arrivals import Arrivals


class TriageAssociation(Association):  # type: ignore[misc]
    """One association with a sender.

    Attributes:
        number: counts the associations of this process; what stands in log lines.
    """

    number = 0
    arrivals: Arrivals

    def run_reactor(self) -> None:
        """Run the association, and note its end however it ends."""
        try:
            super().run_reactor()
        finally:
            self.arrivals.association_ended(self.number, aborted=not self.is_released, now=time.time())

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Take a C-STORE of a class unknown to pynetdicom as what it is; it would abort the association."""
        context = self._accepted_cx.get(context_id)
        if isinstance(msg, C_STORE) and msg.is_valid_request and context and is_storage(str(context.abstract_syntax)):
            StorageServiceClass(self).SCP(msg, context)
            return
        super()._serve_request(msg, context_id)


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
        association = TriageAssociation(self.ae, MODE_ACCEPTOR)
        association.number, association.arrivals = self.server.next_number(), self.server.arrivals
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
    arrivals: Arrivals
    _numbers = 0

    def shutdown(self) -> None:
        """Stop accepting, and close the socket; open associations go on."""
        BaseServer.shutdown(self)
        self.server_close()

    def next_number(self) -> int:
        """Give the next association its number."""
        self._numbers += 1
        return self._numbers
