"""Who may send, how many associations at once, and what is set for each sender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicom_listener.own_token import is_ours
from dicom_listener.user_identity import Claim, IdentityCheck
from triage.errors import ConfigError
from triage.settings import ListenerSettings, SenderSettings

# A-ASSOCIATE-RJ, PS3.8 9.3.4: result, source, reason
CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 1, 3)
NOT_AUTHORISED = (1, 2, 1)  # PS3.7 D.3.3.7: permanent, by the ACSE related function of the provider, no reason given
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True)
class Rejection:
    """Why an association is not accepted: what the sender is told, what the log says, and what it is counted as."""

    code: tuple[int, int, int]
    reason: str
    kind: str  # one of a few words


class Senders:
    """The senders that are set, and the rules for all others.

    Args:
        settings: of the port.
        token: who shows it is a process of ours, see `own_token`; empty: nobody is.

    Raises:
        ConfigError: a passcode_hash is none, or lacks its username.
    """

    def __init__(self, settings: ListenerSettings, *, token: bytes = b"") -> None:
        self._token = token
        self._known = {sender.ae_title.strip(): sender for sender in settings.senders}
        self._checks = {
            title: IdentityCheck(sender.username, sender.passcode_hash)
            for title, sender in self._known.items()
            if sender.username
        }
        self._only_known = settings.only_known_senders
        self._default = SenderSettings(ae_title="UNKNOWN")
        if any(sender.passcode_hash and not sender.username for sender in settings.senders):
            raise ConfigError("A passcode_hash of listener.senders needs a username beside it.")

    def of(self, calling_ae_title: str) -> SenderSettings:
        """Give what is set for a sender; the defaults for one that is not known."""
        return self._known.get(calling_ae_title.strip(), self._default)

    def checks_identity(self, calling_ae_title: str) -> bool:
        """Whether a sender must show who it is."""
        return calling_ae_title.strip() in self._checks

    def rejection(
        self, calling_ae_title: str, host: str, open_from: Sequence[str], claim: Claim | None = None
    ) -> Rejection | None:
        """Say why an association must not be opened; None: it may.

        Args:
            calling_ae_title: as the sender calls itself.
            host: its address.
            open_from: calling AE titles of the associations that are open.
            claim: the user identity that it shows.
        """
        if is_ours(claim, self._token):
            return None
        title = calling_ae_title.strip()
        sender = self._known.get(title)
        if sender is None:
            reason = "calling AE title is not set in listener.senders"
            unknown = Rejection(CALLING_AE_TITLE_NOT_RECOGNIZED, reason, "unknown sender")
            return unknown if self._only_known else None
        if sender.hosts and host not in sender.hosts:
            reason = "calling AE title from a host that is not its own"
            return Rejection(CALLING_AE_TITLE_NOT_RECOGNIZED, reason, "host")
        if objection := self._objection(title, claim):
            return Rejection(NOT_AUTHORISED, objection, "user identity")
        if sender.max_associations is not None and _count(open_from, title) >= sender.max_associations:
            return Rejection(LOCAL_LIMIT_EXCEEDED, "max_associations of this sender", "limit of a sender")
        return None

    def _objection(self, title: str, claim: Claim | None) -> str:
        check = self._checks.get(title)
        return check.objection(claim) if check is not None else ""


def _count(titles: Iterable[str], title: str) -> int:
    return sum(each.strip() == title for each in titles)
