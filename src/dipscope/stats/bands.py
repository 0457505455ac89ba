"""Joint distribution of several means, its multiplier bootstrap, and simultaneous (sup-t) bands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dipscope.stats.distributions import Array, Codes, normal_sf, t_to_z, z_to_t


@dataclass(frozen=True)
class JointMeans:
    """K means with everything that is needed for their joint distribution.

    Attributes:
        mean: (K,) the estimates.
        rows: (C, K) one row per independent cluster of items; the item covariance is `rows.T @ rows`, so
            every cluster moves all K means together.
        seeds: one (R + 1, K) block per set of training runs with S >= 2 seeds, whose covariance
            `block.T @ block` is added; R are its degrees of freedom. Blocks are independent.

    The variance of a contrast is item variance + s²_seed / S. An item-by-seed interaction is counted in
    both parts, which errs on the careful side. With one seed the second part is unknown and left out.
    """

    mean: Array
    rows: Array
    seeds: tuple[Array, ...] = ()

    @property
    def clusters(self) -> int:
        """Number of independent clusters of items."""
        return len(self.rows)

    def linear(self, weights: Array) -> JointMeans:
        """Linear combinations, `weights` (K, Q): the joint distribution of Q contrasts."""
        return JointMeans(
            self.mean @ weights, self.rows @ weights, tuple(block @ weights for block in self.seeds)
        )

    def cov(self) -> Array:
        """(K, K) covariance of the means: items plus training seeds."""
        total = self.rows.T @ self.rows
        for block in self.seeds:
            total = total + block.T @ block
        return np.asarray(total)

    def se(self) -> Array:
        """(K,) standard errors.

        Where no item differs from the mean the estimated error is zero, which no sample can prove. It is
        raised to 1 / C, the error that a single cluster changing by one unit would have shown.
        """
        raw = np.sqrt(np.maximum(np.diag(self.cov()), 0.0))
        return np.asarray(np.where(raw > 1e-12, raw, 1.0 / max(self.clusters, 1)))

    def df(self) -> Array:
        """(K,) degrees of freedom: C − 1, or Satterthwaite's over items and seed blocks."""
        item = np.sum(self.rows**2, axis=0)
        total, spread = item.copy(), item**2 / max(self.clusters - 1, 1)
        for block in self.seeds:
            part = np.sum(block**2, axis=0)
            total, spread = total + part, spread + part**2 / max(len(block) - 1, 1)
        plain = float(max(self.clusters - 1, 1))
        return np.where(spread > 0, total**2 / np.where(spread > 0, spread, 1.0), plain)

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


def joint_means(x: Array, cluster: Codes, stratum: Codes) -> JointMeans:
    """Stratified means of K columns over items, averaged over training seeds.

    Args:
        x: (S, n, K) item scores; NaN marks what was not observed and is left out of its column.
        cluster: (n,) integers; items of one cluster are not independent. Clusters nest in strata.
        stratum: (n,) integers; every stratum (benchmark) has equal weight in the mean.

    Rows carry the usual C / (C − 1) correction per stratum (Miller 2024, arXiv 2411.00640).

    The variance between seeds is pooled over the columns in which the seeds differ: taken column by column
    with S − 1 degrees of freedom, two seeds that agree by chance would look certain, and whatever selects
    the largest z would select that column (band coverage .62 instead of .95, see docs/statistics.md). Pooling
    assumes that seeds matter about equally at every step; that the steps of a run move together is not
    used, which errs on the careful side for changes between them.
    """
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (seeds, items > 0, columns), got {x.shape}")
    seeds, _, columns = x.shape
    item = x.mean(axis=0)
    labels, code = np.unique(cluster, return_inverse=True)
    rows = np.zeros((len(labels), columns))
    strata = np.unique(stratum)
    seen = np.array([np.sum(~np.isnan(item[stratum == s]), axis=0) for s in strata])  # (B, K)
    share = np.where(seen > 0, 1.0 / np.maximum(np.sum(seen > 0, axis=0), 1), 0.0)
    mean, seed_mean = np.zeros(columns), np.zeros((seeds, columns))
    for index, name in enumerate(strata):
        here = stratum == name
        block, n, w = item[here], np.maximum(seen[index], 1), share[index]
        known = ~np.isnan(block)
        centre = np.where(known, block, 0.0).sum(axis=0) / n
        mean += w * centre
        seed_mean += w * np.where(known, x[:, here], 0.0).sum(axis=1) / n
        c = len(np.unique(code[here]))
        factor = np.sqrt(c / (c - 1)) if c > 1 else 1.0
        np.add.at(rows, code[here], factor * w / n * np.where(known, block - centre, 0.0))
    return JointMeans(mean, rows, _seed_blocks(seed_mean))


def _seed_blocks(seed_mean: Array) -> tuple[Array, ...]:
    """One block with a pooled variance on its diagonal, from the mean of every seed (S, K)."""
    seeds, columns = seed_mean.shape
    if seeds < 2:
        return ()
    variance = seed_mean.var(axis=0, ddof=1) / seeds
    trained = np.flatnonzero(variance > 1e-18)
    df = (seeds - 1) * len(trained)
    block = np.zeros((df + 1, columns))
    block[np.arange(len(trained)), trained] = np.sqrt(variance[trained].mean()) if df else 0.0
    return (block,)


def sup_t(joint: JointMeans, alpha: float, draws: int, seed: int, *, one_sided: bool = False) -> float:
    """Critical value c, on the normal scale, with P(max |z| > c) = alpha over the columns.

    Montiel Olea & Plagborg-Møller (2019). With `one_sided`, of max z.
    """
    z = joint.draws(draws, seed)
    top = z.max(axis=1) if one_sided else np.abs(z).max(axis=1)
    return float(np.quantile(top, 1 - alpha, method="higher"))


def max_test(joint: JointMeans, draws: int, seed: int) -> tuple[int, float]:
    """Index of the largest studentised mean and its one-sided p-value, corrected for choosing it.

    Below the resolution of the bootstrap Bonferroni's bound takes over.
    """
    z = joint.z()
    best = int(np.argmax(z))
    top = joint.draws(draws, seed).max(axis=1)
    counted = (1 + int(np.sum(top >= z[best]))) / (draws + 1)
    return best, min(counted, len(z) * normal_sf(float(z[best])), 1.0)


def band(joint: JointMeans, critical: float) -> tuple[Array, Array]:
    """Lower and upper limits (K,) at a critical value on the normal scale, with t-quantiles."""
    half = z_to_t(critical, joint.df()) * joint.se()
    return joint.mean - half, joint.mean + half
