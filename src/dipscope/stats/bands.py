"""Joint distribution of several means, its multiplier bootstrap, and simultaneous (sup-t) bands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dipscope.stats.distributions import Array, Codes, normal_sf, t_to_z, z_to_t


@dataclass(frozen=True)
class SeedVariance:
    """One component of the variance that training seeds add to K means: `variance · weights.T @ weights`.

    Attributes:
        weights: (M, K) how independent deviations of equal variance enter the means.
        variance: of one deviation, after averaging over the seeds; may be estimated as 0.
        scale: the mean square that the estimate of `variance` is as uncertain as; at least `variance`.
        df: degrees of freedom of that mean square.
    """

    weights: Array
    variance: float
    scale: float
    df: float


@dataclass(frozen=True)
class JointMeans:
    """K means with everything that is needed for their joint distribution.

    Attributes:
        mean: (K,) the estimates.
        rows: (C, K) one row per independent cluster of items; the item covariance is `rows.T @ rows`, so
            every cluster moves all K means together.
        seeds: components of the variance between training seeds, independent of each other. With one seed
            it is unknown and left out.
    """

    mean: Array
    rows: Array
    seeds: tuple[SeedVariance, ...] = ()

    @property
    def clusters(self) -> int:
        """Number of independent clusters of items."""
        return len(self.rows)

    def linear(self, weights: Array) -> JointMeans:
        """Linear combinations, `weights` (K, Q): the joint distribution of Q contrasts."""
        seeds = tuple(replace(part, weights=part.weights @ weights) for part in self.seeds)
        return JointMeans(self.mean @ weights, self.rows @ weights, seeds)

    def cov(self) -> Array:
        """(K, K) covariance of the means: items plus training seeds."""
        total = self.rows.T @ self.rows
        for part in self.seeds:
            total = total + part.variance * (part.weights.T @ part.weights)
        return np.asarray(total)

    def se(self) -> Array:
        """(K,) standard errors.

        Where no item differs from the mean the estimated error is zero, which no sample can prove. It is
        raised to 1 / C, the error that a single cluster changing by one unit would have shown.
        """
        raw = np.sqrt(np.maximum(np.diag(self.cov()), 0.0))
        return np.asarray(np.where(raw > 1e-12, raw, 1.0 / max(self.clusters, 1)))

    def df(self) -> Array:
        """(K,) degrees of freedom: C − 1, or Satterthwaite's over items and seeds, which is at least 1.

        A seed variance that is estimated as 0 and still uncertain would else leave fewer, down to none. Where
        nothing varies at all the error is that of one cluster (see `se`), and so are its degrees of freedom.
        """
        item = np.sum(self.rows**2, axis=0)
        total, spread = item.copy(), item**2 / max(self.clusters - 1, 1)
        for part in self.seeds:
            size = np.sum(part.weights**2, axis=0)
            total, spread = total + part.variance * size, spread + (part.scale * size) ** 2 / part.df
        plain = float(max(self.clusters - 1, 1))
        known = (total > 1e-24) & (spread > 0)
        return np.where(known, np.maximum(total**2 / np.where(spread > 0, spread, 1.0), 1.0), plain)

    def z(self) -> Array:
        """(K,) studentised means on the normal scale."""
        return t_to_z(self.mean / self.se(), self.df())

    def draws(self, count: int, seed: int) -> Array:
        """(count, K) studentised draws around 0: the Gaussian multiplier bootstrap.

        Normal multipliers on fixed rows give exactly N(0, cov), so the draws are taken from that law.
        """
        cov = self.cov()
        sd = np.sqrt(np.maximum(np.diag(cov), 0.0))
        alive = sd > 1e-12
        scale = np.where(alive, sd, 1.0)
        corr = cov / np.outer(scale, scale)
        corr[~alive, :] = 0.0
        corr[:, ~alive] = 0.0
        np.fill_diagonal(corr, 1.0)
        values, vectors = np.linalg.eigh(corr)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return np.asarray(_standard_normal(count, len(sd), seed) @ root)


@lru_cache(maxsize=64)
def _standard_normal(count: int, columns: int, seed: int) -> Array:
    table = np.random.default_rng([seed, columns]).standard_normal((count, columns))
    table.flags.writeable = False
    return table


def joint_means(x: Array, cluster: Codes, stratum: Codes, pool: Codes | None = None) -> JointMeans:
    """Stratified means of K columns over items, averaged over training seeds.

    Args:
        x: (S, n, K) item scores; NaN marks what was not observed. An item counts in a column when any seed
            observed it.
        cluster: (n,) integers; items of one cluster are not independent. Clusters nest in strata.
        stratum: (n,) integers; every stratum (benchmark) has equal weight in the mean.
        pool: (K,) integers; columns of one pool share their variance between seeds. One pool by default.

    Rows carry the usual C / (C − 1) correction per stratum (Miller 2024, arXiv 2411.00640). The variance
    between seeds is that of `seed_variance`.
    """
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (seeds, items > 0, columns), got {x.shape}")
    seeds, _, columns = x.shape
    known: NDArray[np.bool_] = np.asarray(~np.isnan(x))
    item = np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    seen: NDArray[np.bool_] = np.asarray(known.any(axis=0))
    labels, code = np.unique(cluster, return_inverse=True)
    rows, residuals = np.zeros((len(labels), columns)), np.zeros((seeds, len(labels), columns))
    strata = np.unique(stratum)
    counts = np.array([np.sum(seen[stratum == s], axis=0) for s in strata])  # (B, K)
    share = np.where(counts > 0, 1.0 / np.maximum(np.sum(counts > 0, axis=0), 1), 0.0)
    mean, seed_mean = np.zeros(columns), np.zeros((seeds, columns))
    for index, name in enumerate(strata):
        here = stratum == name
        block, inside, n, w = item[here], seen[here], np.maximum(counts[index], 1), share[index]
        centre = block.sum(axis=0) / n
        mean += w * centre
        c = len(np.unique(code[here]))
        factor = np.sqrt(c / (c - 1)) if c > 1 else 1.0
        np.add.at(rows, code[here], factor * w / n * np.where(inside, block - centre, 0.0))
        # Deviations of the seeds within the items that all of them observed: their mean is a seed's effect.
        full = np.asarray(known[:, here].all(axis=0))
        m = np.maximum(full.sum(axis=0), 1)
        off = np.where(full, x[:, here] - block, 0.0)
        effect = off.sum(axis=1) / m
        seed_mean += w * effect
        noise = factor * w / m * np.where(full, off - effect[:, None], 0.0)
        np.add.at(residuals.transpose(1, 0, 2), code[here], noise.transpose(1, 0, 2))
    pools = np.zeros(columns, dtype=np.int64) if pool is None else pool
    parts = [p for name in np.unique(pools) for p in seed_variance(seed_mean, residuals, pools == name)]
    return JointMeans(mean, rows, tuple(parts))


def seed_variance(seed_mean: Array, residuals: Array, pool: NDArray[np.bool_]) -> tuple[SeedVariance, ...]:
    """The variance between training seeds in those columns of `pool` in which the seeds differ.

    A seed's effect on the mean of column k is modelled as level + own_k: what a run is better or worse by at
    all its checkpoints, and what each checkpoint adds by itself. The two mean squares of that layout (Searle,
    Casella & McCulloch 1992, ch. 4), on S − 1 and (S − 1)(K − 1) degrees of freedom, give a covariance of
    equal variances and equal correlations over the K columns; where levels vary no more than the rest, both
    are pooled. Both hold the item-by-seed noise too, which the item rows have already: it is estimated within
    items and taken off. The mean of S seeds keeps 1 / S of what is left.

    Taken column by column, with S − 1 degrees of freedom, two seeds that agree by chance look certain, and
    whatever selects the largest z selects that column. Pooling assumes that seeds matter about equally at
    every step. A level cancels from changes between trained checkpoints, but not from changes from the base.

    Args:
        seed_mean: (S, K) deviation of every seed from the mean of all.
        residuals: (S, C, K) what is left within items, weighted as in the means and summed over clusters.
        pool: (K,) which columns to use.

    Returns:
        No component with one seed, or where the seeds differ nowhere.
    """
    seeds, columns = seed_mean.shape
    noise = np.sum(residuals**2, axis=(0, 1))
    trained = np.flatnonzero(pool & ((noise > 1e-18) | (np.ptp(seed_mean, axis=0) > 1e-9)))
    count = len(trained)
    if seeds < 2 or not count:
        return ()
    d = seed_mean[:, trained] - seed_mean[:, trained].mean(axis=0)
    within = float(noise[trained].mean()) / (seeds - 1)
    whole, level = float(np.sum(d**2)), float(np.sum(d.sum(axis=1) ** 2)) / count
    own = np.eye(columns)[trained]
    common = own.sum(axis=0, keepdims=True) / np.sqrt(count)
    df = float(seeds - 1)
    if (count - 1) * level <= whole - level:
        parts = [(own, whole, df * count)]
    else:
        parts = [(common, level, df), (own - common / np.sqrt(count), whole - level, df * (count - 1))]
    return tuple(
        SeedVariance(weights, max(square / f - within, 0.0) / seeds, square / f / seeds, f)
        for weights, square, f in parts
        if f > 0
    )


def sup_t(joint: JointMeans, alpha: float, draws: int, seed: int, *, one_sided: bool = False) -> float:
    """Critical value c, on the normal scale, with P(max |z| > c) = alpha over the columns.

    Montiel Olea & Plagborg-Møller (2019). With `one_sided`, of max z.
    """
    z = joint.draws(draws, seed)
    top = z.max(axis=1) if one_sided else np.abs(z).max(axis=1)
    return float(np.quantile(top, 1 - alpha, method="higher"))


def max_test(joint: JointMeans, draws: int, seed: int) -> tuple[int, float]:
    """Index of the largest studentised mean and its one-sided p-value, corrected for choosing it."""
    best = int(np.argmax(joint.z()))
    return best, chosen_p(joint, best, draws, seed)


def chosen_p(joint: JointMeans, column: int, draws: int, seed: int) -> float:
    """One-sided p-value that a mean is not above 0, valid whichever of the columns was chosen by the data.

    The share of draws whose largest z reaches that of the column (sup-t). Below the resolution of the
    bootstrap Bonferroni's bound takes over.
    """
    z = joint.z()
    top = joint.draws(draws, seed).max(axis=1)
    counted = (1 + int(np.sum(top >= z[column]))) / (draws + 1)
    return min(counted, len(z) * normal_sf(float(z[column])), 1.0)


def band(joint: JointMeans, critical: float) -> tuple[Array, Array]:
    """Lower and upper limits (K,) at a critical value on the normal scale, with t-quantiles."""
    half = z_to_t(critical, joint.df()) * joint.se()
    return joint.mean - half, joint.mean + half
