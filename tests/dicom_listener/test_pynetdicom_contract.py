"""What is leaned on of pynetdicom below its documented interface: a release that changes it fails here, by name."""

from __future__ import annotations

import inspect
import warnings

import pytest
from pydicom.uid import UID
from pynetdicom import _validators, acse, association, dimse, dul, fsm, presentation, sop_class, transport
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer

from dicom_listener import library_settings, upper_layer
from dicom_listener.proposals import AssociationRequest


@pytest.mark.parametrize(
    ("event", "state", "action"),
    [
        (upper_layer.INVALID_PDU, upper_layer.READY_TO_TRANSFER, "AA-8"),
        (upper_layer.INVALID_PDU, upper_layer.AWAITING_REQUEST, "AA-1"),
        (upper_layer.CONNECTION_CLOSED, upper_layer.READY_TO_TRANSFER, "AA-4"),
        (upper_layer.CONNECTION_CLOSED, upper_layer.AWAITING_CLOSE, "AR-5"),
        (upper_layer.ARTIM_EXPIRED, upper_layer.AWAITING_REQUEST, "AA-2"),
        (upper_layer.ARTIM_EXPIRED, upper_layer.AWAITING_CLOSE, "AA-2"),
        (upper_layer.ASSOCIATION_REQUESTED, upper_layer.AWAITING_REQUEST, "AE-6"),
        ("Evt12", upper_layer.READY_TO_TRANSFER, "AR-2"),
        ("Evt16", upper_layer.READY_TO_TRANSFER, "AA-3"),
    ],
)
def test_state_machine_has_the_states_and_events_we_name(event: str, state: str, action: str) -> None:
    assert fsm.TRANSITION_TABLE[event, state] == action


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (dul.DULServiceProvider, "run_reactor"),
        (dul.DULServiceProvider, "_read_pdu_data"),
        (dul.DULServiceProvider, "_is_transport_event"),
        (dul.DULServiceProvider, "_process_recv_primitive"),
        (dul.DULServiceProvider, "_decode_pdu"),
        (dul.DULServiceProvider, "_send"),
        (dul.DULServiceProvider, "send_pdu"),
        (dul.DULServiceProvider, "kill_dul"),
        (dul.DULServiceProvider, "stop_dul"),
        (dul.DULServiceProvider, "idle_timer_expired"),
        (association.Association, "run_reactor"),
        (association.Association, "_run_reactor"),
        (association.Association, "_serve_request"),
        (association.Association, "kill"),
        (acse.ACSE, "is_release_requested"),
        (acse.ACSE, "is_aborted"),
        (acse.ACSE, "send_release"),
        (dimse.DIMSEServiceProvider, "receive_primitive"),
        (dimse.DIMSEServiceProvider, "get_msg"),
        (transport.RequestHandler, "_create_association"),
        (transport.AssociationSocket, "_shutdown_socket"),
        (sop_class, "uid_to_service_class"),
        (presentation, "build_context"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_is_overridden_or_called_is_there(owner: object, name: str) -> None:
    assert callable(getattr(owner, name))


def test_reactor_of_an_acceptor_is_what_ours_does_step_by_step() -> None:
    """Our reactor repeats these steps of pynetdicom's without its polling; a new step must be looked at."""
    source = inspect.getsource(association.Association._run_reactor)
    steps = ["self.dimse.get_msg(block=False)", "self._serve_request(msg,", "self.acse.is_release_requested()",
             "self.acse.send_release(is_response=True)", "self.acse.is_aborted()", "self.dul.is_alive()",
             "self.dul.idle_timer_expired()", "self.kill()"]  # fmt: skip
    places = [source.find(step) for step in steps]
    assert -1 not in places
    assert places[:7] == sorted(places[:7])
    assert len(source.splitlines()) == 81


def test_reactor_of_the_upper_layer_is_what_ours_does_step_by_step() -> None:
    source = inspect.getsource(dul.DULServiceProvider.run_reactor)
    for step in ("self._idle_timer.start()", "self.assoc._dul_ready.set()", "self._kill_thread",
                 'self.event_queue.put("Evt18")', "self._process_recv_primitive()", "self._is_transport_event()",
                 "self._idle_timer.restart()", "self.state_machine.do_action(event)"):  # fmt: skip
        assert step in source
    assert len(source.splitlines()) == 72


def test_association_handler_sets_what_ours_sets() -> None:
    source = inspect.getsource(transport.RequestHandler._create_association)
    for line in ("assoc._server = self.server", "assoc.set_socket(sock)", "assoc.acceptor.maximum_length",
                 "assoc.acceptor.ae_title", "assoc.acceptor.address_info", "assoc.acceptor.implementation_class_uid",
                 "assoc.acceptor.implementation_version_name", "assoc.requestor.address_info"):  # fmt: skip
        assert line in source


@pytest.mark.parametrize("value", ["", "1.2.3", "1" * 64, "1" * 65, "no UID", "1..2"])
def test_uid_is_judged_as_pynetdicom_judges(value: str) -> None:
    library_settings.set_libraries()

    assert library_settings._is_uid(value) == _validators.validate_ui(UID(value))


def test_libraries_are_asked_for_their_checks_where_ours_are_set() -> None:
    library_settings.set_libraries()

    with pytest.raises(ValueError, match="must not exceed 64 characters"):
        PresentationContext().abstract_syntax = "1" * 65
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert UID("no UID") == "no UID"


def test_data_is_handed_over_as_pairs_of_context_and_fragment() -> None:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append([1, b"\x03data"])
    assert primitive.presentation_data_value_list == [[1, b"\x03data"]]


def test_timer_tells_whether_it_runs() -> None:
    timer = Timer(5.0)
    assert timer._start_time is None
    timer.start()
    assert timer._start_time is not None
    assert timer._end_time is None
    timer.stop()
    assert timer._end_time is not None


def encoded_request() -> bytes:
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "PACS", "ICHTRIAGE"
    request.presentation_context_definition_list = [
        presentation.build_context(sop_class.CTImageStorage, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]),
        presentation.build_context("1.2.3.4.5", ["1.2.840.10008.1.2", "1.2.840.113619.5.2"]),
    ]
    for number, context in enumerate(request.presentation_context_definition_list):
        context.context_id = 2 * number + 1
    longest = MaximumLengthNotification()
    longest.maximum_length_received = 16382
    request.user_information = [longest]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


def test_association_request_is_read_as_pynetdicom_reads_it() -> None:
    theirs, ours = A_ASSOCIATE_RQ(), AssociationRequest()
    theirs.decode(encoded_request())
    ours.decode(encoded_request())

    expected, found = theirs.to_primitive(), ours.to_primitive()

    assert found.presentation_context_definition_list == expected.presentation_context_definition_list
    assert len(found.presentation_context_definition_list) == 2
    assert (found.calling_ae_title, found.called_ae_title) == ("PACS", "ICHTRIAGE")
    assert [type(item) for item in found.user_information] == [MaximumLengthNotification]


def test_association_request_with_lengths_that_lie_is_refused() -> None:
    whole = encoded_request()
    start = whole.index(b"\x20\x00", 74)

    for end in (start + 2, start + 10, len(whole) - 3):
        with pytest.raises(ValueError, match=r"an item of|ends inside"):
            AssociationRequest().decode(whole[:end])
