"""Rank correlation with an exact permutation p-value."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from dipscope.stats.distributions import Array

_ALL_PERMUTATIONS_UP_TO = 8


def spearman_rho(a: Array, b: Array) -> float:
    """Spearman's rank correlation with mid-ranks; 0 where one side is constant."""
    x, y = _ranks(a), _ranks(b)
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def spearman(a: Array, b: Array) -> tuple[float, float]:
    """Correlation and two-sided permutation p: exact up to 8 pairs, else 20 000 seeded permutations."""
    rho, n = spearman_rho(a, b), len(a)
    x, y = _ranks(a), _ranks(b)
    if n <= _ALL_PERMUTATIONS_UP_TO:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.argsort(np.random.default_rng(0).random((20_000, n)), axis=1)
        orders[0] = np.arange(n)
    products = (x - x.mean()) @ (y - y.mean())[orders].T
    seen = abs(float((x - x.mean()) @ (y - y.mean())))
    return rho, float(np.mean(np.abs(products) >= seen - 1e-9))


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)
