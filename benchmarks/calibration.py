"""Size and power of the dip test by simulation; prints one JSON line.

Run as: python benchmarks/calibration.py [REPLICATES]

With several training seeds, each (seed, checkpoint) deviates by its own amount; `band_coverage` is then the
share of simultaneous bands that hold the true curve, `net_coverage` that of the interval of last − base.

Truths: flat, falls and stays (an obvious and a moderate fall), stays low and jumps at the end, and a dip of
four points that recovers. Ten checkpoints; items have success probabilities Beta(1.2, 0.6), and every item
responds to every checkpoint with its own deviation of 0.5 logits. `looks` is the share of curves whose
lowest interior point lies below both ends: what reading the plot would call a dip.
"""

from __future__ import annotations

import json
import sys
import time
from functools import lru_cache

import numpy as np

from dipscope.stats.bands import band, joint_means, sup_t
from dipscope.stats.shape import describe, dip_test, trough_contrasts

POINTS = 10
TRUTHS = {
    "flat": (0.0, ()),
    "fall_small": (0.03, range(3, POINTS)),
    "fall_large": (0.12, range(3, POINTS)),
    "jump_small": (0.03, range(POINTS - 1)),
    "jump_large": (0.12, range(POINTS - 1)),
    "dip": (0.04, range(2, 6)),
}


@lru_cache
def logit_shift(points: float) -> float:
    """The common shift in logits that lowers the mean score by `points`."""
    rng = np.random.default_rng(0)
    p = rng.beta(1.2, 0.6, 100_000).clip(1e-4, 1 - 1e-4)
    base = np.log(p / (1 - p)) + 0.5 * rng.standard_normal(len(p))
    low, high, target = -5.0, 0.0, float(np.mean(1 / (1 + np.exp(-base)))) - points
    for _ in range(40):
        middle = 0.5 * (low + high)
        if np.mean(1 / (1 + np.exp(-base - middle))) < target:
            low = middle
        else:
            high = middle
    return high


def scores(rng: np.random.Generator, items: int, samples: int, truth: str, seeds: int = 1) -> np.ndarray:
    """(seeds, items, POINTS) simulated item means."""
    depth, where = TRUTHS[truth]
    curve = np.zeros(POINTS)
    if depth:
        curve[list(where)] = logit_shift(depth)
    p = rng.beta(1.2, 0.6, items).clip(1e-4, 1 - 1e-4)
    logits = np.log(p / (1 - p))[:, None] + curve + 0.5 * rng.standard_normal((items, POINTS))
    return rng.binomial(samples, 1 / (1 + np.exp(-logits)), (seeds, items, POINTS)) / samples


def seeded(
    seeds: int, sd: float, truth: str, replicates: int, items: int = 200, draws: int = 1000
) -> dict[str, float]:
    """Size of the dip test and coverage, over items and seeds, where seeds differ by `sd` (score units)."""
    own, one = np.arange(items), np.zeros(items, dtype=np.int64)
    # Scores near 0 and 1 are clipped when a seed moves them, so the truth is what many seeds give.
    many = np.mean(
        [_moved(np.random.default_rng([1, r]), 20, sd, truth, 2000) for r in range(20)], axis=(0, 1, 2)
    )
    rejected = held = covered = 0
    for replicate in range(replicates):
        x = _moved(np.random.default_rng([replicate, seeds]), seeds, sd, truth, items)
        means = joint_means(x, own, one)
        rejected += dip_test(means.linear(trough_contrasts(POINTS)), draws, replicate).p < 0.05
        low, high = band(means, sup_t(means, 0.05, draws, replicate))
        held += bool(np.all((low <= many) & (many <= high)))
        net = describe(means, margin=0.02, draws=100).net
        covered += net.low <= many[-1] - many[0] <= net.high
    shares = {"rejected": rejected, "band_coverage": held, "net_coverage": covered}
    return {name: count / replicates for name, count in shares.items()}


def _moved(rng: np.random.Generator, seeds: int, sd: float, truth: str, items: int) -> np.ndarray:
    """(seeds, items, POINTS) scores of one sample an item; the base is common to all seeds."""
    depth, where = TRUTHS[truth]
    curve = np.zeros(POINTS)
    if depth:
        curve[list(where)] = logit_shift(depth)
    p = rng.beta(1.2, 0.6, items).clip(1e-4, 1 - 1e-4)
    logits = np.log(p / (1 - p))[:, None] + curve + 0.5 * rng.standard_normal((items, POINTS))
    moved = 1 / (1 + np.exp(-logits)) + sd * rng.standard_normal((seeds, 1, POINTS)) * (np.arange(POINTS) > 0)
    drawn = rng.random((seeds, items, POINTS)) < moved.clip(0, 1)
    drawn[:, :, 0] = drawn[0, :, 0]
    return drawn.astype(float)


def rates(items: int, samples: int, truth: str, replicates: int, draws: int = 1000) -> dict[str, float]:
    """Rejection rate at the 5 % level, and how often the plot looks like a dip."""
    rejected = looks = covered = 0
    own, one = np.arange(items), np.zeros(items, dtype=np.int64)
    for replicate in range(replicates):
        x = scores(np.random.default_rng([replicate, items, samples]), items, samples, truth)
        means = joint_means(x, own, one)
        rejected += dip_test(means.linear(trough_contrasts(POINTS)), draws, replicate).p < 0.05
        low = means.mean[1:-1].min()
        looks += low < min(means.mean[0], means.mean[-1])
        if truth in ("flat", "dip"):
            net = describe(means, margin=0.02, draws=100).net
            covered += net.low <= 0.0 <= net.high
    out = {"rejected": rejected / replicates, "looks": looks / replicates}
    if truth in ("flat", "dip"):
        out["net_coverage"] = covered / replicates
    return out


def main() -> None:
    replicates = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    start = time.perf_counter()
    table = {
        f"n={items},k={samples}": {truth: rates(items, samples, truth, replicates) for truth in TRUTHS}
        for items, samples in ((30, 10), (100, 1), (200, 1), (500, 3))
    }
    by_seeds = {
        f"seeds={seeds},sd={sd}": {truth: seeded(seeds, sd, truth, replicates) for truth in TRUTHS}
        for seeds, sd in ((1, 0.0), (2, 0.0), (2, 0.05), (2, 0.15), (3, 0.05), (3, 0.15))
    }
    seconds = round(time.perf_counter() - start, 1)
    print(
        json.dumps(
            {
                "benchmark": "calibration",
                "replicates": replicates,
                "seconds": seconds,
                "rates": table,
                "seeds": by_seeds,
            }
        )
    )


if __name__ == "__main__":
    main()
