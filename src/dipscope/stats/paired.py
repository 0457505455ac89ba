"""Paired contrasts: intervals, exact tests, equivalence, multiplicity, and what could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from dipscope.stats.bands import JointMeans
from dipscope.stats.distributions import Array, t_quantile, t_sf

_EXACT_UP_TO = 20


@dataclass(frozen=True)
class Contrast:
    """One paired difference.

    Attributes:
        value: the estimate, in the unit of the scores.
        se: its standard error; df: degrees of freedom of the t reference.
        low, high: two-sided 1 − alpha limits.
        p: two-sided p-value of no difference.
        clusters: independent units behind it.
    """

    value: float
    se: float
    df: float
    low: float
    high: float
    p: float
    clusters: int

    @property
    def mde(self) -> float:
        """Smallest difference seen with 80 % power at the two-sided 5 % level: 2.8 standard errors."""
        return 2.8 * self.se

    def p_greater(self, than: float = 0.0) -> float:
        """One-sided p-value against 'not above `than`'. Superiority; non-inferiority with −margin."""
        return float(t_sf((self.value - than) / self.se, self.df))

    def p_less(self, than: float = 0.0) -> float:
        """One-sided p-value against 'not below `than`'."""
        return float(t_sf((than - self.value) / self.se, self.df))

    def p_equivalent(self, margin: float) -> float:
        """Two one-sided tests (Schuirmann 1987): p-value against a difference of `margin` or more."""
        return max(self.p_greater(-margin), self.p_less(margin))


def contrast(joint: JointMeans, alpha: float = 0.05, column: int = 0) -> Contrast:
    """The t contrast of one column (cluster-robust, seeds as a variance component of their own)."""
    value, se, df = float(joint.mean[column]), float(joint.se()[column]), float(joint.df()[column])
    half = float(t_quantile(1 - alpha / 2, df)) * se
    p = min(1.0, 2 * float(t_sf(abs(value) / se, df)))
    return Contrast(value, se, df, value - half, value + half, p, joint.clusters)


def sign_flip(differences: Array) -> float:
    """Exact two-sided p-value of a zero median of symmetric differences, by all 2^n sign changes.

    Args:
        differences: (n,) independent paired differences; zeros carry no information and are dropped.

    Raises:
        ValueError: more than 20 non-zero differences, where the t contrast serves.
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if len(d) > _EXACT_UP_TO:
        raise ValueError(f"{len(d)} non-zero differences; exact enumeration stops at {_EXACT_UP_TO}")
    sums = np.zeros(1)
    for size in np.abs(d):
        sums = np.concatenate([sums + size, sums - size])
    seen = abs(float(d.sum()))
    return float(np.mean(np.abs(sums) >= seen - 1e-9 * max(1.0, seen)))


def mcnemar_midp(lost: int, gained: int) -> float:
    """Mid-p of the exact McNemar test from the two discordant counts (Fagerland et al. 2013)."""
    n, k = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    tail = float(sum(comb(n, i) for i in range(k + 1)) / 2**n)
    return min(1.0, 2 * tail - float(comb(n, k) / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: (p_values[i], i))
    adjusted, top = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        top = max(top, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = top
    return adjusted
