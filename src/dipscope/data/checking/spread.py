"""Quantiles, mean and a logarithmic histogram of one number per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent
PER_DOUBLING = 4  # bins of the histogram while a length doubles


@dataclass(frozen=True)
class Spread:
    """How one number is distributed over the rows of a table.

    Attributes:
        count: rows.
        quantiles: values at 0, 5, 25, 50, 75, 95 and 100 %, each one that occurs (inverse of the
            distribution function); empty for no rows.
        mean: mean; 0 for no rows.
        total: sum.
        present: rows with a value of at least 1: those that have what is measured, for lengths.
        typical: median of those; 0 for none.
        bins: (k, rows) for the rows with a value in [2^(k/4), 2^((k+1)/4)), ascending; values below 1 stand
            in no bin. Empty unless asked for.
    """

    count: int
    quantiles: tuple[float, ...]
    mean: float
    total: float
    present: int = 0
    typical: float = 0.0
    bins: tuple[tuple[int, int], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the quantiles by percent."""
        named = {f"{q}%": value for q, value in zip(QUANTILES, self.quantiles, strict=False)}
        return {**asdict(self), "quantiles": named, "bins": [list(b) for b in self.bins]}


def of(values: Sequence[float], *, binned: bool = False) -> Spread:
    """The distribution of some values.

    Args:
        values: one number per row.
        binned: whether the histogram is wanted; for lengths.
    """
    if not len(values):
        return Spread(0, (), 0.0, 0.0)
    array = np.asarray(values)
    present = array[array >= 1]
    bins: tuple[tuple[int, int], ...] = ()
    if binned:
        # The small shift keeps whole powers of two, whose logarithm may fall short, in their own bin.
        places = np.floor(PER_DOUBLING * np.log2(present) + 1e-9).astype(int)
        bins = tuple((int(k), int(n)) for k, n in zip(*np.unique(places, return_counts=True), strict=True))
    return Spread(
        count=len(array),
        quantiles=tuple(_cut(array, q / 100) for q in QUANTILES),
        mean=float(array.mean()),
        total=array.sum().item(),
        present=len(present),
        typical=_cut(present, 0.5) if len(present) else 0.0,
        bins=bins,
    )


def _cut(values: NDArray[Any], q: float) -> float:
    cut: float = np.quantile(values, q, method="inverted_cdf").item()
    return cut


def edge(k: int) -> float:
    """Lower edge of bin k."""
    return math.pow(2.0, k / PER_DOUBLING)
