"""Patients across sources: one key each, one fold each, and never in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from triage.errors import ConfigError

FOLDS = 5
LEAKS_NAMED = 5  # of an error; more would bury what to do
# sources that hold the same people: BHSD was drawn on RSNA 2019, ct-ich is published in two forms, and a site's
# segmentations and its readers' opinions are of one set of patients
DOMAINS = {"ct-ich-nifti": "ct-ich", "pasted": "ct-ich", "bhsd": "rsna", "opinions": "dicom-seg"}


@dataclass(frozen=True)
class Membership:
    """One patient in one source of one split."""

    patient: str
    source: str
    split: str


class LeakingPatient(ConfigError):
    """A patient stands in two splits: scores would be those of memory."""


def patient_key(source: str, patient: str) -> str:
    """Give the key of a person: the same for sources that were made from the same people."""
    name = source.rpartition(", ")[0] or source  # "ct-ich, pasted" holds the patients of ct-ich
    domain = DOMAINS.get(name, name)
    number = patient.lstrip("0") if patient.isdigit() else patient
    return f"{domain}:{number or patient}"


def fold_of(key: str) -> int:
    """Give the fold of a patient, 0 to 4, from the key alone: new scans and new sources move nobody."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % FOLDS


def leaks(members: Iterable[Membership]) -> list[tuple[Membership, Membership]]:
    """Find patients that stand in two splits, each with where it stands first and where again."""
    first: dict[str, Membership] = {}
    found: dict[tuple[str, str, str], tuple[Membership, Membership]] = {}
    for member in members:
        key = patient_key(member.source, member.patient)
        before = first.setdefault(key, member)
        if before.split != member.split:
            found.setdefault((key, member.source, member.split), (before, member))
    return list(found.values())


def refuse_leaks(patients: Mapping[str, Iterable[tuple[str, str]]]) -> None:
    """Refuse splits that share a patient.

    Args:
        patients: (source, patient) of each scan, by split.

    Raises:
        LeakingPatient: names the patients with both their sources and splits.
    """
    found = leaks(Membership(patient, source, split) for split, scans in patients.items() for source, patient in scans)
    if found:
        raise LeakingPatient(describe_leaks(found))


def describe_leaks(found: list[tuple[Membership, Membership]]) -> str:
    """Name the first of the patients that leak, each with both places."""
    lines = [
        f"patient {first.patient} of {first.source} in {first.split} is patient {again.patient} of {again.source} "
        f"in {again.split}"
        for first, again in found[:LEAKS_NAMED]
    ]
    more = f"; and {len(found) - LEAKS_NAMED} more" if len(found) > LEAKS_NAMED else ""
    return f"Patients stand in two splits: {'; '.join(lines)}{more}. Give each split folds of its own."
