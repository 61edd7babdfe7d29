"""Every error this product raises on purpose.

    TriageError
    ├── ConfigError             a setting, path or file given by a person is wrong
    ├── UnreadableInstance      bytes that are no DICOM instance, or whose pixels cannot be decoded
    ├── UnsuitableSeries        a series that the model must not read; carries the reason
    │   └── IrregularSpacing    slices missing, doubled or unevenly spaced
    ├── ServingError            the model endpoint refused or failed
    │   └── ServingUnavailable  it cannot be reached, is loading or timed out: try again later
    └── StoreError              the ledger or the instance store cannot do what was asked
        └── LeaseLost           the study was taken by another worker, or re-opened by late images

A message says what was found, what was expected and what to do, in measurements and never in identifiers:
the row and the bound logger know which study it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triage.study import NotAnalysedReason


class TriageError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(TriageError):
    """A setting, path or file that a person gave is wrong."""


class UnreadableInstance(TriageError):
    """Bytes that are no DICOM instance, or pixels that no decoder here can read."""


class UnsuitableSeries(TriageError):
    """A series that the model must not read: a result, not a fault.

    Args:
        reason: one of the closed list `triage.study.NotAnalysedReason`.
        measured: what was found and what was expected, e.g. "9 slices; expected at least 12".
    """

    def __init__(self, reason: NotAnalysedReason, measured: str) -> None:
        self.reason = reason
        self.measured = measured
        super().__init__(f"{reason.value}: {measured}")


class IrregularSpacing(UnsuitableSeries):
    """Slices are missing, doubled or unevenly spaced along their normal."""

    def __init__(self, gaps_mm: Sequence[float]) -> None:
        from triage.study import NotAnalysedReason

        self.gaps_mm = tuple(gaps_mm)
        super().__init__(
            NotAnalysedReason.UNEVEN_GAPS,
            f"slice gaps run from {min(gaps_mm):.2f} to {max(gaps_mm):.2f} mm; "
            "expected one spacing. Ask for the series to be sent again",
        )


class ServingError(TriageError):
    """The model endpoint refused or failed.

    Args:
        code: gRPC status code name, e.g. "INVALID_ARGUMENT".
    """

    def __init__(self, message: str, *, code: str = "UNKNOWN") -> None:
        self.code = code
        super().__init__(message)


class ServingUnavailable(ServingError):
    """The endpoint cannot be reached, has no model yet, or did not answer in time: try again later."""


class StoreError(TriageError):
    """The ledger or the instance store cannot do what was asked."""


class LeaseLost(StoreError):
    """The study was taken by another worker, or late images re-opened it: this result is void."""
