"""What can be wrong with a scan of a source, and what is then done with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from triage.errors import ConfigError, UnsuitableSeries
from triage.study import NotAnalysedReason


class ScanFault(StrEnum):
    """Why a scan, or part of its truth, cannot be used: a closed list."""

    UNDECODABLE = "undecodable"
    NOT_FINITE = "not finite"
    NOT_HU = "not HU"
    WRONG_WINDOW = "wrong window"
    GEOMETRY = "geometry"
    TOO_FEW_SLICES = "too few slices"
    DUPLICATE_IMAGE = "duplicate image"
    DUPLICATE_PATIENT = "duplicate patient"
    MASK_WITHOUT_IMAGE = "mask without image"
    NO_TRUTH = "no mask or label"
    MASK_OVER_AIR = "mask over air"
    MASK_OUTSIDE_HEAD = "mask outside the head"
    CONTRADICTION = "label and mask contradict"


class FaultAction(StrEnum):
    """What happens to a faulty scan."""

    DROPPED = "dropped"
    REPAIRED = "repaired"
    KEPT = "kept"


@dataclass(frozen=True)
class ScanFinding:
    """One fault of one scan.

    Attributes:
        source: name of the source.
        scan: what the source calls the scan.
        fault: what is wrong.
        action: what is done about it.
        measured: what was found and what was expected.
    """

    source: str
    scan: str
    fault: ScanFault
    action: FaultAction
    measured: str


class BadScan(ConfigError):
    """One scan of a source cannot be used; says which, why and what to do."""

    def __init__(self, scan: str, fault: ScanFault, measured: str) -> None:
        self.scan = scan
        self.fault = fault
        self.measured = measured
        super().__init__(f"{scan}: {fault.value}: {measured}. `ich-triage data convert` leaves such scans out.")


FAULT_OF_REASON = {
    NotAnalysedReason.CANNOT_DECODE: ScanFault.UNDECODABLE,
    NotAnalysedReason.NO_HU: ScanFault.NOT_HU,
    NotAnalysedReason.TOO_FEW_SLICES: ScanFault.TOO_FEW_SLICES,
}


def bad_series(scan: str, refused: UnsuitableSeries) -> BadScan:
    """Give the fault of a DICOM series that `triage` refuses."""
    return BadScan(scan, FAULT_OF_REASON.get(refused.reason, ScanFault.GEOMETRY), refused.measured)
