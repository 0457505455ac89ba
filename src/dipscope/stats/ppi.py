"""A mean that many cheap and few good labels give together: prediction-powered inference.

Angelopoulos, Bates, Fannjiang, Jordan and Zrnic (2023), with the weight of the cheap labels chosen as in
Angelopoulos, Duchi and Zrnic (2023, "PPI++"). Whatever bias the cheap labels have, the few good ones take it
out; what the cheap ones add is precision, and with the weight chosen they cost next to none. That the weight
is chosen on the same units is part of the error, so the labelled units' part of it comes from the jackknife.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dipscope.stats.distributions import Array, Codes, t_quantile


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: the estimate, in the unit of the labels.
        se: its standard error.
        low, high: two-sided 1 − alpha limits.
        weight: of the cheap labels; 0 leaves them out, 1 trusts them like the good ones.
        labelled: units with both labels.
        rest: units with the cheap one alone.
    """

    value: float
    se: float
    low: float
    high: float
    weight: float
    labelled: int
    rest: int


def ppi_mean(
    good: ArrayLike,
    cheap: ArrayLike,
    cheap_rest: ArrayLike,
    *,
    alpha: float = 0.05,
    weight: float | None = None,
) -> Estimate:
    """The mean of the good label over a population of which all units have the cheap one.

    With weight λ: mean(good) + λ (mean(cheap_rest) − mean(cheap)). Its variance is that of the labelled units
    (the delete-one jackknife, which for a fixed λ is var(good − λ cheap)/n) and λ² var(cheap_rest)/N. The
    reference is Student's t with n − 1 degrees of freedom.

    Args:
        good: (n,) good labels of a random part of the units.
        cheap: (n,) cheap labels of the same units, in the same order.
        cheap_rest: (N,) cheap labels of the other units; may be empty.
        alpha: 1 − coverage.
        weight: λ; None takes the one of least estimated variance, within [0, 1].

    Raises:
        ValueError: fewer than two units have both labels, or the labels do not pair up.
    """
    y, f, rest = (np.asarray(a, float) for a in (good, cheap, cheap_rest))
    if y.shape != f.shape or y.ndim != 1 or len(y) < 2:
        raise ValueError("at least two units need both labels")
    n, more = len(y), len(rest)

    def fitted(units: Codes) -> tuple[float, float]:
        """Estimate and weight from some of the labelled units."""
        if not more:
            return float(y[units].mean()), 0.0
        chosen = _weight(y[units], f[units], rest) if weight is None else weight
        return float(y[units].mean() + chosen * (rest.mean() - f[units].mean())), chosen

    every = np.arange(n)
    value, of_all = fitted(every)
    without = np.array([fitted(np.delete(every, i))[0] for i in range(n)])
    of_labelled = (n - 1) / n * float(((without - without.mean()) ** 2).sum())
    of_rest = float(np.var(rest, ddof=1)) / more if more > 1 else 0.0
    se = float(np.sqrt(of_labelled + of_all**2 * of_rest))
    half = float(t_quantile(1 - alpha / 2, n - 1)) * se
    return Estimate(value, se, value - half, value + half, of_all, n, more)


def _weight(y: Array, f: Array, rest: Array) -> float:
    """The λ of least variance: cov(good, cheap) / ((1 + n/N) var(cheap))."""
    spread = float(np.var(np.concatenate([f, rest]), ddof=1))
    if len(y) < 2 or spread <= 0:
        return 0.0
    return min(max(float(np.cov(y, f)[0, 1]) / ((1 + len(y) / len(rest)) * spread), 0.0), 1.0)
