"""The answer to an association request is byte for byte what pynetdicom would send."""

from __future__ import annotations

from itertools import cycle

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext

from dicom_listener.acceptance import encoded_acceptance

SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.113619.5.2", "1.2.840.10008.1.2.4.90")
RESULTS = (0, 1, 3, 4)  # accepted, and rejected in each way, PS3.8 Table 9-18


def acceptance(contexts: list[PresentationContext], *more_items: object) -> A_ASSOCIATE_AC:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = "PACS", "ICHTRIAGE"
    primitive.result, primitive.result_source = 0, 1
    primitive.presentation_context_definition_results_list = contexts
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = 131072
    implementation.implementation_class_uid = UID("1.2.3.4")
    primitive.user_information = [longest, implementation, *more_items]
    return A_ASSOCIATE_AC(primitive)


def results(count: int) -> list[PresentationContext]:
    contexts = []
    for number, syntax, result in zip(range(count), cycle(SYNTAXES), cycle(RESULTS), strict=False):
        context = PresentationContext()
        context.context_id = 2 * number + 1
        context.abstract_syntax = AllStoragePresentationContexts[number].abstract_syntax
        context.transfer_syntax = [syntax]
        context.result = result
        contexts.append(context)
    return contexts


def test_128_contexts_are_answered_as_pynetdicom_answers():
    pdu = acceptance(results(128))

    encoded = encoded_acceptance(pdu)

    assert encoded == pdu.encode()
    assert len(encoded) > 128 * 20


def test_other_items_of_an_answer_are_pynetdicoms():
    operations, role, identity = (
        AsynchronousOperationsWindowNegotiation(), SCP_SCU_RoleSelectionNegotiation(), UserIdentityNegotiation()
    )  # fmt: skip
    operations.maximum_number_operations_invoked = operations.maximum_number_operations_performed = 1
    role.sop_class_uid, role.scu_role, role.scp_role = UID("1.2.840.10008.1.20.1"), True, False
    identity.server_response = b""
    pdu = acceptance(results(3), operations, role, identity)

    assert encoded_acceptance(pdu) == pdu.encode()


def test_answer_may_be_decoded_again():
    decoded = A_ASSOCIATE_AC()

    decoded.decode(encoded_acceptance(acceptance(results(5))))

    items = decoded.presentation_context
    assert [(item.presentation_context_id, item.result_reason) for item in items] == [
        (1, 0), (3, 1), (5, 3), (7, 4), (9, 0)
    ]  # fmt: skip
    assert [item.transfer_syntax for item in items] == [*SYNTAXES, SYNTAXES[0]]
    assert decoded.reserved_aet == "ICHTRIAGE"
