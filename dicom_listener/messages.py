"""Puts presentation data values together to messages: C-STORE is taken here, everything else goes to pynetdicom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pynetdicom.pdu_primitives import P_DATA

from dicom_listener.incoming_data import IncomingData, TooLarge
from dicom_listener.pdu import (
    C_STORE_RQ,
    COMMAND_BYTES_MAX,
    Command,
    DataValue,
    ProtocolError,
    ValueHead,
    read_command,
    store_response,
)
from dicom_listener.receiver import Answer
from dicom_listener.statuses import StoreStatus

OTHER_DATA_MAX = 16 * 1024 * 1024  # of requests other than C-STORE; a storage commitment of 10,000 images has 2 MB


class StoreService(Protocol):
    """What takes the data sets of one association."""

    def begin(self, command: Command, context_id: int) -> IncomingData | None:
        """Make room for a data set; None: the presentation context is none for storage."""

    def end(self, command: Command, context_id: int, data: IncomingData) -> Answer:
        """Keep a whole data set and give its status."""

    def refused(self, answer: Answer) -> None:
        """Note an answer to a request of which no whole data set was taken."""


class MessageReader:
    """The messages of one association.

    Args:
        service: takes C-STORE requests.
        send: sends a PDU's bytes to the peer.
        pass_on: gives a P-DATA primitive of another message to pynetdicom.
        is_accepted: whether a presentation context was accepted.
    """

    def __init__(
        self,
        service: StoreService,
        *,
        send: Callable[[bytes], None],
        pass_on: Callable[[P_DATA], None],
        is_accepted: Callable[[int], bool],
    ) -> None:
        self._service = service
        self._send = send
        self._pass_on = pass_on
        self._is_accepted = is_accepted
        self._encoded = bytearray()
        self._command: Command | None = None
        self._context_id: int | None = None
        self._data: IncomingData | None = None
        self._failed: Answer | None = None
        self._other_bytes = 0

    def read(self, value: DataValue) -> None:
        """Take the next presentation data value.

        Raises:
            ProtocolError: abort the association.
        """
        if not self._is_accepted(value.context_id):
            raise ProtocolError("a presentation data value in a context that was not accepted")
        if self._context_id not in (None, value.context_id):
            raise ProtocolError("a message that changes its presentation context")
        self._context_id = value.context_id
        if value.is_command:
            self._read_command(value)
        else:
            self._read_data(value)

    def place_for(self, head: ValueHead) -> memoryview | None:
        """Give the memory that a value of the data set which is coming in may be read into; None: `read` it.

        Raises:
            ProtocolError: abort the association.
        """
        if self._data is None or head.is_command or head.context_id != self._context_id:
            return None
        try:
            return self._data.place(head.size)
        except TooLarge as error:
            raise _too_large() from error

    def placed(self, head: ValueHead) -> None:
        """Take in a value that was read into its place."""
        if self._data is None:
            raise ProtocolError("a data set without a place")
        try:
            self._data.placed(head.size)
        except OSError:
            self._fail(self._data)
        if head.is_last:
            self._answer(self._kept())

    @property
    def inside_message(self) -> bool:
        """Whether more of a message must come."""
        return self._context_id is not None

    def close(self) -> None:
        """Drop what is unfinished."""
        if self._data is not None:
            self._data.discard()
        self._begin_message()

    def _begin_message(self) -> None:
        self._encoded = bytearray()
        self._command = self._context_id = self._data = self._failed = None
        self._other_bytes = 0

    def _read_command(self, value: DataValue) -> None:
        if self._command is not None:
            raise ProtocolError("a command where a data set was announced")
        self._encoded += value.content
        if len(self._encoded) > COMMAND_BYTES_MAX:
            raise ProtocolError(f"a command set of more than {COMMAND_BYTES_MAX} bytes")
        if not value.is_last:
            return
        self._command = read_command(self._encoded)
        if self._command.field != C_STORE_RQ:
            self._hand_over(self._encoded, IS_LAST_COMMAND)
            if not self._command.has_data_set:
                self._begin_message()
        elif self._command.has_data_set:
            self._begin_data(self._command, value.context_id)
        else:
            self._answer(self._refused(Answer(StoreStatus.CANNOT_UNDERSTAND, "a C-STORE without data set")))

    def _read_data(self, value: DataValue) -> None:
        if self._command is None:
            raise ProtocolError("a data set without a command")
        if self._command.field != C_STORE_RQ:
            self._read_other_data(value)
            return
        if self._data is not None:
            self._append(self._data, value)
        if value.is_last:
            self._answer(self._kept())

    def _begin_data(self, command: Command, context_id: int) -> None:
        self._data = self._service.begin(command, context_id)
        if self._data is None:
            self._failed = Answer(StoreStatus.NOT_SUPPORTED, "the presentation context is not for storage")

    def _append(self, data: IncomingData, value: DataValue) -> None:
        try:
            data.append(value.content)
        except TooLarge as error:
            raise _too_large() from error
        except OSError:
            self._fail(data)

    def _fail(self, data: IncomingData) -> None:
        """Go on reading a data set that cannot be kept, to be able to answer."""
        data.discard()
        self._data = None
        self._failed = Answer(StoreStatus.OUT_OF_RESOURCES, "the disk takes no data")

    def _kept(self) -> Answer:
        if self._data is None or self._command is None or self._context_id is None:
            return self._refused(self._failed or Answer(StoreStatus.OUT_OF_RESOURCES))
        try:
            return self._service.end(self._command, self._context_id, self._data)
        finally:
            self._data.discard()

    def _refused(self, answer: Answer) -> Answer:
        self._service.refused(answer)
        return answer

    def _answer(self, answer: Answer) -> None:
        if self._command is None or self._context_id is None:
            raise ProtocolError("an answer to nothing")
        response = store_response(self._command, self._context_id, answer.status, answer.comment)
        self._begin_message()
        self._send(response)

    def _read_other_data(self, value: DataValue) -> None:
        self._other_bytes += len(value.content)
        if self._other_bytes > OTHER_DATA_MAX:
            raise ProtocolError(f"a data set of more than {OTHER_DATA_MAX} bytes with a request that is no C-STORE")
        self._hand_over(value.content, LAST_DATA if value.is_last else MORE_DATA)
        if value.is_last:
            self._begin_message()

    def _hand_over(self, content: bytes | bytearray | memoryview, control: int) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append([self._context_id, bytes([control]) + bytes(content)])
        self._pass_on(primitive)


def _too_large() -> ProtocolError:
    return ProtocolError("a data set beyond listener.max_object_bytes")


IS_LAST_COMMAND = 0x03  # message control headers, PS3.8 E.2
LAST_DATA = 0x02
MORE_DATA = 0x00
