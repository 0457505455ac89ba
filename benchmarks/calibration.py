"""Size and power of the dip test by simulation; prints one JSON line.

Run as: python benchmarks/calibration.py [REPLICATES]

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

from dipscope.stats.bands import joint_means
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
    seconds = round(time.perf_counter() - start, 1)
    print(
        json.dumps({"benchmark": "calibration", "replicates": replicates, "seconds": seconds, "rates": table})
    )


if __name__ == "__main__":
    main()
