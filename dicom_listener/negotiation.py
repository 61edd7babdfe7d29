"""Who gets an association, with what in it, and what is noted of its course (PS3.8 7.1, PS3.7 Annex D.3)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_listener.arrivals import Arrivals
from dicom_listener.contexts import supported_contexts
from dicom_listener.metrics import Metrics
from dicom_listener.recurring import RecurringLog
from dicom_listener.senders import Rejection, Senders
from dicom_listener.user_identity import Claim

recurring = RecurringLog()
usual = RecurringLog(each_minute=600)  # ten a second are a busy PACS; a thousand are somebody who fills the disk

ONE_OPERATION_AT_A_TIME = (1, 1)  # the answer to whatever window is proposed (PS3.7 D.3.3.3)
REJECTED_BY_PYNETDICOM = {(1, 1, 7): "called AE title", (2, 3, 2): "limit of all"}
CONTEXT_RESULTS = {3: "abstract syntax not supported", 4: "transfer syntaxes not supported"}  # PS3.8 Table 9-18
NAMED_AT_MOST = 8  # rejected abstract syntaxes that one log line names


class Negotiation:
    """pynetdicom's events around an association.

    Args:
        senders: what is set for each of them.
        arrivals: which associations are open.
        metrics: counts them.
    """

    def __init__(self, senders: Senders, arrivals: Arrivals, metrics: Metrics) -> None:
        self._senders = senders
        self._arrivals = arrivals
        self._metrics = metrics

    def handlers(self) -> list[tuple[Any, Any]]:
        """Give what to bind to which event."""
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ASYNC_OPS, lambda _: ONE_OPERATION_AT_A_TIME),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._aborted),
        ]

    def _requested(self, event: Any) -> None:
        association = event.assoc
        request = association.requestor.primitive
        calling = request.calling_ae_title
        identity = association.requestor.user_identity
        rejection = self._senders.rejection(
            calling, association.requestor.address, self._arrivals.senders(), _claim_of(identity)
        )
        if rejection is not None:
            self._reject(association, rejection)
            return
        association.acceptor.supported_contexts = supported_contexts(request.presentation_context_definition_list)
        if identity is not None and identity.positive_response_requested and self._senders.checks_identity(calling):
            association.acceptor.add_negotiation_item(_confirmation())
        # before the answer: its first image may come before pynetdicom says that it is established
        self._arrivals.association_opened(association.number, calling_ae_title=calling)

    def _reject(self, association: Any, rejection: Rejection) -> None:
        recurring.warning("sender_rejected", reason=rejection.reason, peer_host=association.requestor.address)
        self._count_rejection(rejection.code, rejection.kind)
        association.acse.send_reject(*rejection.code)
        association.kill()  # waits until it is sent

    def _rejected(self, event: Any) -> None:
        primitive = event.assoc.acceptor.primitive
        code = (primitive.result, primitive.result_source, primitive.diagnostic)
        # now, and not when the peer has closed: it must neither hold up a study nor count against its sender
        self._arrivals.association_ended(event.assoc.number, aborted=False, now=time.time())
        self._count_rejection(code, REJECTED_BY_PYNETDICOM.get(code, "other"))
        recurring.warning(
            "association_rejected",
            association=event.assoc.number,
            peer_host=event.assoc.requestor.address,
            code=_joined(code),
        )

    def _count_rejection(self, code: tuple[int, int, int], reason: str) -> None:
        self._metrics.count("ich_listener_rejections_total", code=_joined(code), reason=reason)

    def _established(self, event: Any) -> None:
        association = event.assoc
        calling = association.requestor.ae_title
        self._metrics.count("ich_listener_associations_total")
        usual.info("association_opened", association=association.number, calling_ae_title=calling,
                   peer_host=association.requestor.address, contexts=len(association.accepted_contexts))  # fmt: skip
        if association.rejected_contexts:
            self._note_rejected_contexts(association, calling)

    def _note_rejected_contexts(self, association: Any, calling: str) -> None:
        """Say what a sender offered in vain: its administrator sees only that some images do not arrive."""
        rejected = association.rejected_contexts
        for context in rejected:
            reason = CONTEXT_RESULTS.get(context.result, "other")
            self._metrics.count("ich_listener_contexts_rejected_total", reason=reason)
        recurring.warning("contexts_rejected", association=association.number, calling_ae_title=calling,
                          contexts=len(rejected), reason=_names_of(rejected))  # fmt: skip

    def _released(self, event: Any) -> None:
        usual.info("association_released", association=event.assoc.number)

    def _aborted(self, event: Any) -> None:
        self._metrics.count("ich_listener_aborts_total")
        recurring.warning("association_aborted", association=event.assoc.number)


def _claim_of(identity: UserIdentityNegotiation | None) -> Claim | None:
    if identity is None:
        return None
    return Claim(identity.user_identity_type or 0, identity.primary_field or b"", identity.secondary_field or b"")


def _confirmation() -> UserIdentityNegotiation:
    """Give the positive response to a user name: it is empty (PS3.7 Table D.3-15)."""
    item = UserIdentityNegotiation()
    item.server_response = b""
    return item


def _names_of(contexts: Sequence[Any]) -> str:
    """Name abstract syntaxes, as far as the Standard knows them: what else a peer writes there stays out of the log."""
    uids = [str(context.abstract_syntax) for context in contexts]
    names = dict.fromkeys(_public_name(UID(uid)) for uid in uids)
    more = len(names) - NAMED_AT_MOST
    return ", ".join([*list(names)[:NAMED_AT_MOST], *([f"{more} more"] if more > 0 else [])])


def _public_name(uid: UID) -> str:
    return uid.name if uid.name != uid else "one of no public name"


def _joined(code: tuple[int, int, int]) -> str:
    return "/".join(map(str, code))
