"""The shape of a curve over checkpoints: a calibrated test for dip and recovery, and its quantities.

With m_0 the base, m_T the last checkpoint and j any checkpoint between, a dip with recovery means that both
m_0 − m_j and m_T − m_j are positive for one j. The statistic is M = max_j min(z_0j, z_Tj). Under the null no
interior m_j lies below the lower end, min(m_0, m_T); the null depends on how far the ends are apart: the
curve may be flat, may fall and stay, or may stay and jump. The two contrasts of one j differ by exactly
m_T − m_0, so the multiplier bootstrap draws around the least favourable null with the ends as far apart as
they were estimated: the contrast that the lower end forbids at 0, the other at |m_T − m_0|. The estimate is
moved by half its standard error either way and the larger p-value counts.

That is a smooth moment selection. The hard rule (drop a contrast from the minimum once z exceeds
1 + √(2 log log n)) keeps its level when the fall is absent or obvious, but rejected up to 13 % of simulated
curves with a fall of three points in between. `benchmarks/calibration.py` measures the rule used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dipscope.stats.bands import JointMeans, band, sup_t
from dipscope.stats.distributions import Array, Codes, normal_sf, t_sf
from dipscope.stats.paired import Contrast, contrast, holm

SMALL_N = 100
_NET_SLACK = 0.5
Label = Literal[
    "dip-and-recover",
    "dip-and-overshoot",
    "partial-recovery",
    "dip",
    "fall-and-stay",
    "fall",
    "rise",
    "rise-then-fall",
    "flat",
    "inconclusive",
]


def trough_contrasts(points: int) -> Array:
    """Weights (T, 2J) on the T points of a curve: m_0 − m_j for the J interior j, then m_T − m_j."""
    inner = range(1, points - 1)
    weights = np.zeros((points, 2 * len(inner)))
    for column, j in enumerate(inner):
        weights[j, [column, column + len(inner)]] = -1.0
        weights[0, column] = weights[-1, column + len(inner)] = 1.0
    return weights


@dataclass(frozen=True)
class DipTest:
    """Outcome of the test: its statistic (normal scale), p-value, and the interior index that gave it."""

    statistic: float
    p: float
    at: int


def dip_test(contrasts: JointMeans, draws: int, seed: int) -> DipTest:
    """Test dip and recovery on 2J contrasts in the order of `trough_contrasts`.

    The contrasts need not come from one curve: pairs of checkpoints may each use the items observed at
    both. Rise and fall is the same test on the negated contrasts. Below the resolution of the bootstrap
    the p-value is bounded by the sum over j of the tail probability of the contrast that is at 0.
    """
    z = contrasts.z()
    half = len(z) // 2
    if half == 0:
        return DipTest(0.0, 1.0, 0)
    fall, back = z[:half], z[half:]
    floor = np.minimum(fall, back)
    at = int(np.argmax(floor))
    statistic = float(floor[at])
    star = contrasts.draws(draws, seed)
    se, apart = contrasts.se(), contrasts.mean[half:] - contrasts.mean[:half]
    wide = _NET_SLACK * contrasts.linear(np.vstack([-np.eye(half), np.eye(half)])).se()
    counted = 0.0
    for net in (apart - wide, apart + wide):
        null_fall = star[:, :half] + np.maximum(-net, 0.0) / se[:half]
        null_back = star[:, half:] + np.maximum(net, 0.0) / se[half:]
        top = np.minimum(null_fall, null_back).max(axis=1)
        counted = max(counted, (1 + int(np.sum(top >= statistic))) / (draws + 1))
    tails = half * normal_sf(statistic)
    return DipTest(statistic, min(counted, tails, 1.0) if statistic > 0 else max(counted, 0.5), at)


@dataclass(frozen=True)
class Curve:
    """What a curve of T points shows, in score units.

    Attributes:
        p_dip, p_hump: dip and recovery; rise and fall (the same test upside down).
        trough: interior index of the lowest mean; `trough_low` to `trough_high` is its 1 − alpha range
            over the bootstrap. None without interior points.
        depth, recovery: m_0 − m_trough and m_T − m_trough with limits that hold at every interior
            checkpoint at once, so also at the selected one.
        depth_corrected: depth with the trough chosen on one half of the items and measured on the other.
        net: m_T − m_0 with a t interval.
        lowest, highest: limits of m_t − m_0 over all t > 0, simultaneous.
        p_no_dip: against 'at some interior checkpoint a fall and a recovery of `margin` or more'; small where
            such a dip is excluded. At each checkpoint either the fall or the recovery has to be smaller (the
            lower of two p-values, doubled), and this at every checkpoint (the largest of these).
        stays: at every interior checkpoint the simultaneous upper limit of the recovery is below `margin`.
        small_n: fewer than 100 independent clusters.
    """

    p_dip: float
    p_hump: float
    trough: int | None
    trough_low: int | None
    trough_high: int | None
    depth: tuple[float, float, float] | None
    recovery: tuple[float, float, float] | None
    depth_corrected: float | None
    net: Contrast
    lowest: float
    highest: float
    p_no_dip: float
    stays: bool
    small_n: bool


def describe(
    means: JointMeans,
    halves: Array | None = None,
    *,
    margin: float,
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> Curve:
    """Test and measure the shape of a curve of T >= 2 points.

    Args:
        means: the joint distribution of the T means, base first.
        halves: (R, T) deviations of half-sample means from the full means for R random halves (see
            `split_halves`); the other half deviates by the negative.
        margin: the difference that counts as none, in score units.
        alpha: two-sided error of the intervals.
        draws: size of the bootstrap.
        seed: its seed.

    Raises:
        ValueError: fewer than two points.
    """
    points = len(means.mean)
    if points < 2:
        raise ValueError("a shape needs at least two points")
    ends = np.zeros((points, 1))
    ends[0], ends[-1] = -1.0, 1.0
    net = contrast(means.linear(ends), alpha)
    from_base = means.linear(np.vstack([-np.ones((1, points - 1)), np.eye(points - 1)]))
    low, high = band(from_base, sup_t(from_base, alpha, draws, seed))
    small = means.clusters < SMALL_N
    if points < 3:
        return Curve(
            1.0, 1.0, None, None, None, None, None, None, net,
            float(low.min()), float(high.max()), 1.0, False, small,
        )  # fmt: skip
    pairs = means.linear(trough_contrasts(points))
    dip = dip_test(pairs, draws, seed)
    hump = dip_test(pairs.linear(-np.eye(2 * (points - 2))), draws, seed)
    trough = 1 + int(np.argmin(means.mean[1:-1]))
    below, above = band(pairs, sup_t(pairs, alpha, draws, seed))
    j = trough - 1
    half = points - 2
    small_changes = t_sf((margin - pairs.mean) / pairs.se(), pairs.df())
    wander = means.mean + means.draws(draws, seed) * means.se()
    lows = 1 + np.argmin(wander[:, 1:-1], axis=1)
    corrected = None
    if halves is not None:
        chosen = 1 + np.argmin((means.mean + halves)[:, 1:-1], axis=1)
        other = means.mean - halves
        corrected = float(np.mean(other[:, 0] - other[np.arange(len(other)), chosen]))
    return Curve(
        p_dip=dip.p,
        p_hump=hump.p,
        trough=trough,
        trough_low=int(np.quantile(lows, alpha / 2, method="lower")),
        trough_high=int(np.quantile(lows, 1 - alpha / 2, method="higher")),
        depth=(float(pairs.mean[j]), float(below[j]), float(above[j])),
        recovery=(float(pairs.mean[half + j]), float(below[half + j]), float(above[half + j])),
        depth_corrected=corrected,
        net=net,
        lowest=float(low.min()),
        highest=float(high.max()),
        p_no_dip=float(min(1.0, 2 * np.minimum(small_changes[:half], small_changes[half:]).max())),
        stays=bool(np.all(above[half:] < margin)),
        small_n=small,
    )


@dataclass(frozen=True)
class Evidence:
    """P-values behind a shape, each adjusted for the curves that are judged together.

    Attributes:
        dip, hump: of the dip test on the curve and on its negative.
        net: that the end differs from the base, two-sided.
        returns: that the curve dips and is back: the larger of the dip test's p-value and that of an end not
            below the base by the margin (an intersection–union test).
        against: that it does not: no dip of the margin or more, or an end below the base by more than the
            margin; the smaller of the two, doubled.
    """

    dip: float
    hump: float
    net: float
    returns: float
    against: float


def evidence(curves: Sequence[Curve], margin: float) -> list[Evidence]:
    """The evidence of curves that are judged together, Holm-corrected over them.

    Dip, return and its opposite are a family each. Rise-then-fall and net change are one family: a flat curve
    would otherwise have two chances more of a wrong name.
    """
    count = len(curves)
    moves = holm([*(c.p_hump for c in curves), *(c.net.p for c in curves)])
    families = (
        holm([c.p_dip for c in curves]),
        moves[:count],
        moves[count:],
        holm([max(c.p_dip, c.net.p_greater(-margin)) for c in curves]),
        holm([min(1.0, 2 * min(c.p_no_dip, c.net.p_less(-margin))) for c in curves]),
    )
    return [Evidence(*ps) for ps in zip(*families, strict=True)]


def classify(curve: Curve, p: Evidence, *, margin: float, alpha: float) -> Label:
    """Name the shape.

    In this order. `flat`: every checkpoint lies within the margin of the base, simultaneously. Where the dip
    test rejects, `dip-and-overshoot`: the end is above the base; `dip-and-recover`: it is shown not to be
    below the base by the margin; `partial-recovery`: it is shown to be (at alpha / 2); `dip`: neither is.
    `rise-then-fall`; `rise`. A net fall is `fall-and-stay` where a recovery from the trough of the margin or
    more is excluded, else `fall`. Otherwise `inconclusive`.
    """
    if curve.lowest > -margin and curve.highest < margin:
        return "flat"
    if p.dip < alpha:
        if p.returns < alpha:
            above = curve.net.value > 0 and p.net < alpha
            return "dip-and-overshoot" if above else "dip-and-recover"
        below = curve.net.value < -margin and p.against < alpha / 2
        return "partial-recovery" if below else "dip"
    if p.hump < alpha:
        return "rise-then-fall"
    if p.net < alpha:
        if curve.net.value > 0:
            return "rise"
        return "fall-and-stay" if curve.stays else "fall"
    return "inconclusive"


def split_halves(x: Array, stratum: Codes, splits: int, seed: int) -> Array:
    """Deviations (R, T) of the mean of a random half of the items, `x` (n, T), from the full mean.

    Halves are drawn inside each stratum; strata have equal weight.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((splits, x.shape[1]))
    strata = np.unique(stratum)
    for name in strata:
        block = x[stratum == name]
        n = len(block)
        if n < 2:
            continue
        order = np.argsort(rng.random((splits, n)), axis=1)
        sign = np.where(order < n // 2, 1.0, -1.0)
        total += sign @ (block - block.mean(axis=0)) / n / len(strata)
    return total
