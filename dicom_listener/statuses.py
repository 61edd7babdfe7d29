"""The C-STORE statuses that this port answers (PS3.4 Table B.2-1)."""

from __future__ import annotations

from enum import IntEnum


class StoreStatus(IntEnum):
    """What a sender is told of one instance; anything but SUCCESS means that it still owns the image."""

    SUCCESS = 0x0000
    OUT_OF_RESOURCES = 0xA700  # disk full or low, ledger not writable: send it again later
    DOES_NOT_MATCH = 0xA900  # UIDs of command and data set differ, or are no UIDs
    NOT_SUPPORTED = 0x0122  # PS3.7 Annex C: SOP class not supported
    CANNOT_UNDERSTAND = 0xC000  # the data set does not parse, or is cut short
