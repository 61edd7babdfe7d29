"""95 % intervals: a score without one is not reported."""

from __future__ import annotations

from collections.abc import Callable
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


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, seed: int = 1) -> Estimate:
    """Give a statistic of `n` patients with its percentile interval over patients drawn with replacement.

    Args:
        statistic: takes the indices of the drawn patients; nan where a draw cannot be scored, which is left out.
        n: patients.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    value = statistic(np.arange(n))
    drawn = np.array([statistic(rng.integers(n, size=n)) for _ in range(BOOTSTRAPS)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Estimate(value, float("nan"), float("nan"), n)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(value, float(low), float(high), n)
