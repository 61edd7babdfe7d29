"""What pynetdicom and pydicom must not do of themselves in a listener; both are set for the whole process."""

from __future__ import annotations

import pydicom.config
from pynetdicom import _config

from dicom_listener.uids import UID_LENGTH_MAX


def set_libraries() -> None:
    """Keep identifiers out of their log lines and warnings, and let a UID be checked once instead of four times.

    An association request of 128 contexts has some 400 UIDs. Those from outside are checked where they are read
    (`proposals.py`, `uids.py`).
    """
    _config.LOG_HANDLER_LEVEL = "none"  # its log lines quote identifiers
    _config.VALIDATORS["UI"] = _is_uid
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote values


def _is_uid(value: str) -> tuple[bool, str]:
    """Judge as pynetdicom's own validator does, which makes and checks the UID anew."""
    if not value:
        return False, "must not be an empty str"
    if len(value) > UID_LENGTH_MAX:
        return False, f"must not exceed {UID_LENGTH_MAX} characters"
    return True, ""
