"""95 % intervals: a score without one is not reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959964  # of the normal distribution, two-sided
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and of how many."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"cannot be told (n = {self.n})"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


def wilson(successes: int, n: int) -> Estimate:
    """Give a share with Wilson's score interval; nan of 0.

    Reference:
        Wilson E.B., Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    share = successes / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    return Estimate(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)), n)


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, patients: Sequence[Hashable] | None = None, seed: int = 1
) -> Estimate:
    """Give a statistic of `n` studies with its percentile interval over patients drawn with replacement.

    Args:
        statistic: takes the indices of the drawn studies; nan where a draw cannot be scored, which is left out.
        n: studies.
        patients: whose each study is; all studies of a drawn patient come together. None: each has one.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    value = statistic(np.arange(n))
    members = _members(patients if patients is not None else range(n))
    drawn = np.array(
        [
            statistic(np.concatenate([members[at] for at in rng.integers(len(members), size=len(members))]))
            for _ in range(BOOTSTRAPS if n else 0)
        ]
    )
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Estimate(value, float("nan"), float("nan"), n)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(value, float(low), float(high), n)


def _members(patients: Sequence[Hashable]) -> list[np.ndarray]:
    """Give the indices of each patient's studies."""
    found: dict[Hashable, list[int]] = {}
    for index, patient in enumerate(patients):
        found.setdefault(patient, []).append(index)
    return [np.array(indices) for indices in found.values()]
