"""Walk through sources: what is wrong in them, what is repaired, and who stands in two splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from training.case import Case
from training.cleansing import Cleansed, cleanse, content_sha256
from training.labelled_scan import LabelledScan, LabelledSlabs, on_grid
from training.patients import Membership, describe_leaks, leaks, patient_key, refuse_leaks
from training.scan_faults import BadScan, FaultAction, ScanFault, ScanFinding
from training.settings import PastedSource, PhantomSource, RunSettings, SourceSettings
from training.sources import cases_of, read_source
from triage.volume import Grid

SPLITS = ("source", "validation", "test")


@dataclass(frozen=True)
class SplitSource:
    """One source in one split of a run."""

    split: str
    source: SourceSettings


@dataclass
class SourceTally:
    """What a source was found to hold, counted while it streams by."""

    split: str
    source: str
    scans: int = 0
    kept: int = 0
    bleeding: int = 0
    findings: list[ScanFinding] = field(default_factory=list)

    def count(self, fault: ScanFault, action: FaultAction) -> int:
        """Give how many scans had that fault and that action."""
        return sum(finding.fault is fault and finding.action is action for finding in self.findings)


@dataclass(frozen=True)
class CheckedScan:
    """One scan after its check; `scan` is None where it is left out, `shown` where nothing could be read."""

    name: str
    scan: LabelledScan | None
    shown: LabelledScan | None
    findings: tuple[ScanFinding, ...]


class ScanCheck:
    """Checks scans one after another and remembers which images and patients it has seen.

    Memory grows by a hash a scan, never by voxels.
    """

    def __init__(self) -> None:
        self.tallies: list[SourceTally] = []
        self.leaking: list[str] = []
        self._images: dict[str, tuple[str, str, str]] = {}  # content: split, source, scan
        self._patients: dict[str, tuple[str, str]] = {}  # key: split, source

    def walk(self, chosen: SplitSource) -> Iterator[CheckedScan]:
        """Check the scans of one source, each as it is asked for."""
        tally = SourceTally(chosen.split, chosen.source.kind)
        self.tallies.append(tally)
        for case in cases_of(chosen.source):
            checked = self._check(chosen.split, case)
            tally.scans += 1
            tally.findings.extend(checked.findings)
            if checked.scan is not None:
                tally.kept += 1
                tally.bleeding += checked.scan.bleed
            yield checked

    def _check(self, split: str, case: Case) -> CheckedScan:
        repeated = self._repeated_patient(split, case)
        if repeated is not None:
            return CheckedScan(case.name, None, None, (repeated,))
        try:
            scan = case.read()
        except BadScan as bad:
            finding = ScanFinding(case.source, case.name, bad.fault, FaultAction.DROPPED, bad.measured)
            return CheckedScan(case.name, None, None, (finding,))
        cleansed = cleanse(scan, case.name)
        doubled = self._repeated_image(split, case, cleansed)
        if doubled is not None:
            return CheckedScan(case.name, None, scan, (*cleansed.findings, doubled))
        return CheckedScan(case.name, cleansed.scan, scan, cleansed.findings)

    def _repeated_patient(self, split: str, case: Case) -> ScanFinding | None:
        """Notice a patient of another source of the same split: the earlier source keeps the patient."""
        key = patient_key(case.source, case.patient)
        first_split, first_source = self._patients.setdefault(key, (split, case.source))
        if first_source == case.source or first_split != split or _is_derived(case.source):
            return None
        measured = f"patient {case.patient} is in {first_source} too, which is named first"
        return ScanFinding(case.source, case.name, ScanFault.DUPLICATE_PATIENT, FaultAction.DROPPED, measured)

    def _repeated_image(self, split: str, case: Case, cleansed: Cleansed) -> ScanFinding | None:
        if cleansed.scan is None or _is_derived(case.source):
            return None
        first = self._images.setdefault(content_sha256(cleansed.scan.volume), (split, case.source, case.name))
        if first == (split, case.source, case.name):
            return None
        if first[0] != split:
            here, there = f"{case.name} of {case.source} in {split}", f"{first[2]} of {first[1]} in {first[0]}"
            self.leaking.append(f"Scan {here} has the images of scan {there}: leave it out of one.")
        measured = f"the same voxels as scan {first[2]} of {first[1]}"
        return ScanFinding(case.source, case.name, ScanFault.DUPLICATE_IMAGE, FaultAction.DROPPED, measured)


def split_sources(settings: RunSettings) -> list[SplitSource]:
    """Give the sources of a run with their splits."""
    return [SplitSource(split, source) for split in SPLITS for source in getattr(settings, split)]


def find_leaks(chosen: Sequence[SplitSource]) -> str:
    """Say which patients stand in two splits, from tables and headers alone; empty where none does."""
    found = leaks(
        Membership(case.patient, case.source, each.split) for each in chosen for case in cases_of(each.source)
    )
    return describe_leaks(found) if found else ""


def refuse_shared_patients(chosen: Sequence[SplitSource]) -> None:
    """Refuse sources whose splits share a patient.

    Raises:
        LeakingPatient: names the patients with both their sources and splits.
    """
    members: dict[str, list[tuple[str, str]]] = {each.split: [] for each in chosen}
    for each in chosen:
        members[each.split].extend((case.source, case.patient) for case in cases_of(each.source))
    refuse_leaks(members)


def clean_reader(
    check: ScanCheck, split: str, seen: Callable[[CheckedScan], None]
) -> Callable[[SourceSettings, Grid], Iterator[LabelledSlabs]]:
    """Give a reader for `shards.convert` that leaves out or repairs what is faulty."""

    def read(source: SourceSettings, grid: Grid) -> Iterator[LabelledSlabs]:
        if isinstance(source, PastedSource | PhantomSource):
            yield from read_source(source, grid)  # made, not found: nothing to cleanse
            return
        for checked in check.walk(SplitSource(split, source)):
            seen(checked)
            if checked.scan is not None:
                yield on_grid(checked.scan, grid)

    return read


def _is_derived(source: str) -> bool:
    """Whether a source is made from the patients of another on purpose."""
    return source.endswith(", pasted")
