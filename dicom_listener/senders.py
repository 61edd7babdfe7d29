"""Who may send, how many associations at once, and what is set for each sender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from triage.settings import ListenerSettings, SenderSettings

# A-ASSOCIATE-RJ, PS3.8 9.3.4: result, source, reason
CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 1, 3)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True)
class Rejection:
    """Why an association is not accepted: what the sender is told, and what the log says."""

    code: tuple[int, int, int]
    reason: str


class Senders:
    """The senders that are set, and the rules for all others."""

    def __init__(self, settings: ListenerSettings) -> None:
        self._known = {sender.ae_title.strip(): sender for sender in settings.senders}
        self._only_known = settings.only_known_senders

    def of(self, calling_ae_title: str) -> SenderSettings:
        """Give what is set for a sender; the defaults for one that is not known."""
        title = calling_ae_title.strip()
        return self._known.get(title) or SenderSettings(ae_title=title or "UNKNOWN")

    def rejection(self, calling_ae_title: str, host: str, open_from: Sequence[str]) -> Rejection | None:
        """Say why an association must not be opened; None: it may.

        Args:
            calling_ae_title: as the sender calls itself.
            host: its address.
            open_from: calling AE titles of the associations that are open.
        """
        title = calling_ae_title.strip()
        sender = self._known.get(title)
        if sender is None:
            unknown = Rejection(CALLING_AE_TITLE_NOT_RECOGNIZED, "calling AE title is not set in listener.senders")
            return unknown if self._only_known else None
        if sender.hosts and host not in sender.hosts:
            return Rejection(CALLING_AE_TITLE_NOT_RECOGNIZED, "calling AE title from a host that is not its own")
        if sender.max_associations is not None and _count(open_from, title) >= sender.max_associations:
            return Rejection(LOCAL_LIMIT_EXCEEDED, "max_associations of this sender")
        return None


def _count(titles: Iterable[str], title: str) -> int:
    return sum(each.strip() == title for each in titles)
