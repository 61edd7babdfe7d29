"""What readers say of results, as labels that training can learn from and as figures of agreement.

A label says whether the study shows fresh blood. It comes from an opinion only where that follows: who agrees with a
flag saw blood; who calls a flag an artefact saw none; a chronic bleed, a state after surgery and "other" leave it
open. Readers who contradict each other leave it open too.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from triage.ledger.feedback import Disagreement, JudgedResult

NO_BLOOD = frozenset({Disagreement.ARTEFACT, Disagreement.CALCIFICATION, Disagreement.TUMOUR})
Z_95 = 1.959964  # of the normal distribution, two-sided


@dataclass(frozen=True)
class StudyLabel:
    """What the readers of one study say together; `bleed` None: it stays open."""

    judged: tuple[JudgedResult, ...]
    bleed: bool | None

    @property
    def newest(self) -> JudgedResult:
        """The result that was judged last."""
        return max(self.judged, key=lambda item: item.opinion.at)


@dataclass(frozen=True)
class Share:
    """A share of so many, with Wilson's 95 % interval (JASA 1927)."""

    part: int
    whole: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; only of more than none."""
        return self.part / self.whole


@dataclass(frozen=True)
class ModelAgreement:
    """How often readers agree with one version of a model."""

    model_name: str
    model_version: int
    flagged: Share | None  # agreed with, of the flagged results that were judged; None: there are none
    unflagged: Share | None
    reasons: Mapping[Disagreement, int]


def label_of(judged: JudgedResult) -> bool | None:
    """Say what one opinion says of blood in the study; None: nothing that is sure."""
    opinion = judged.opinion
    if opinion.agrees:
        return judged.flagged
    if opinion.reason is Disagreement.MISSED_BLEED:
        return True
    return False if judged.flagged and opinion.reason in NO_BLOOD else None


def labels_of(judged: Iterable[JudgedResult]) -> list[StudyLabel]:
    """Put the opinions on each study together; `judged` is ordered by study."""
    labels = []
    for _, group in groupby(judged, key=lambda item: item.study_instance_uid):
        results = tuple(group)
        said = {label for label in map(label_of, results) if label is not None}
        labels.append(StudyLabel(results, said.pop() if len(said) == 1 else None))
    return labels


def agreement(judged: Sequence[JudgedResult]) -> list[ModelAgreement]:
    """Count agreement by model and version, the newest version first."""
    versions = sorted({(item.model_name, item.model_version) for item in judged}, reverse=True)
    return [
        _agreement_with([item for item in judged if (item.model_name, item.model_version) == version])
        for version in versions
    ]


def pseudonym(key: bytes, kind: str, identity: str) -> str:
    """Give a name that stands for a study, patient or reader of this site; without the key nobody can work it out."""
    return hmac.new(key, f"{kind}\0{identity}".encode(), hashlib.sha256).hexdigest()[:16]


def share(part: int, whole: int) -> Share | None:
    """Give a share with its interval; None of none."""
    if whole == 0:
        return None
    value = part / whole
    centre = (value + Z_95**2 / (2 * whole)) / (1 + Z_95**2 / whole)
    half = Z_95 * math.sqrt(value * (1 - value) / whole + Z_95**2 / (4 * whole**2)) / (1 + Z_95**2 / whole)
    return Share(part, whole, max(0.0, centre - half), min(1.0, centre + half))


def _agreement_with(judged: Sequence[JudgedResult]) -> ModelAgreement:
    by_flag = {flagged: [item for item in judged if item.flagged is flagged] for flagged in (True, False)}
    shares = {flagged: share(sum(item.opinion.agrees for item in some), len(some)) for flagged, some in by_flag.items()}
    reasons = Counter(item.opinion.reason for item in judged if item.opinion.reason is not None)
    return ModelAgreement(judged[0].model_name, judged[0].model_version, shares[True], shares[False], reasons)
