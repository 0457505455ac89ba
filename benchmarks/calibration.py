"""Size and power of the dip test by simulation; prints one JSON line.

Run as: python benchmarks/calibration.py [REPLICATES]

Truths: flat, falls and stays (an obvious and a moderate fall), stays low and jumps at the end, and a dip of
four points that recovers. Ten checkpoints; items have success probabilities Beta(1.2, 0.6), and every item
responds to every checkpoint with its own deviation of 0.5 logits. `looks` is the share of curves whose
lowest interior point lies below both ends: what reading the plot would call a dip.

With training seeds, every (seed, checkpoint) after the base also deviates by its own amount (`independent`),
every run by one amount at all its checkpoints (`level`), or some checkpoints four times as much as the others
(`uneven`). `band`, `net` and `trough` are then the coverage of the simultaneous band, of the interval of
last − base, and of both depth and recovery at the trough that the data chose; `wrong` is the share of names
that say something untrue of the curve, `direction` that of untrue names of a rise or a fall.

`confounds` is the two-sided size, at its boundary, of 'less than half of the fall is left': falls of equal
depth at several checkpoints, of which the data choose one, and exactly half of each left.
"""

from __future__ import annotations

import json
import sys
import time
from functools import lru_cache

import numpy as np

from dipscope.analysis.confounds import remainder
from dipscope.stats.bands import band, joint_means, sup_t
from dipscope.stats.shape import classify, describe, dip_test, evidence, trough_contrasts
from dipscope.study import AnalysisSpec

POINTS = 10
MARGIN = 0.02
TRUTHS = {
    "flat": (0.0, ()),
    "fall_small": (0.03, range(3, POINTS)),
    "fall_large": (0.12, range(3, POINTS)),
    "jump_small": (0.03, range(POINTS - 1)),
    "jump_large": (0.12, range(POINTS - 1)),
    "dip": (0.04, range(2, 6)),
}
TRUE_NAMES = {
    "flat": {"flat", "inconclusive"},
    "fall_large": {"fall", "fall-and-stay", "inconclusive"},
    "jump_large": {"rise", "inconclusive"},
    "dip": {"dip", "dip-and-recover", "inconclusive"},
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
    p = rng.beta(1.2, 0.6, items).clip(1e-4, 1 - 1e-4)
    logits = np.log(p / (1 - p))[:, None] + shape_of(truth) + 0.5 * rng.standard_normal((items, POINTS))
    return rng.binomial(samples, 1 / (1 + np.exp(-logits)), (seeds, items, POINTS)) / samples


def seeded(
    seeds: int,
    sd: float,
    truth: str,
    replicates: int,
    *,
    kind: str = "independent",
    items: int = 200,
    draws: int = 1000,
) -> dict[str, float]:
    """Size of the dip test, wrong names and coverage, where training seeds differ by `sd` (score units)."""
    own, one = np.arange(items), np.zeros(items, dtype=np.int64)
    sds = deviations(kind, sd)
    curve = expected(truth, tuple(sds))
    contrasts, inner = trough_contrasts(POINTS), POINTS - 2
    counts = dict.fromkeys(("rejected", "wrong", "direction", "band", "net", "trough"), 0)
    for replicate in range(replicates):
        x = moved(np.random.default_rng([replicate, seeds]), seeds, sds, truth, items, shared=kind == "level")
        means = joint_means(x, own, one)
        low, high = band(means, sup_t(means, 0.05, draws, replicate))
        counts["band"] += bool(np.all((low <= curve) & (curve <= high)))
        shape = describe(means, margin=MARGIN, draws=draws, seed=replicate)
        counts["rejected"] += shape.p_dip < 0.05
        name = classify(shape, evidence([shape], MARGIN)[0], margin=MARGIN, alpha=0.05)
        untrue = name not in TRUE_NAMES[truth]
        counts["wrong"] += untrue
        counts["direction"] += untrue and name.startswith(("rise", "fall"))
        counts["net"] += shape.net.low <= curve[-1] - curve[0] <= shape.net.high
        true, j = curve @ contrasts, shape.trough - 1
        limits = (shape.depth, true[j]), (shape.recovery, true[inner + j])
        counts["trough"] += all(e[1] <= value <= e[2] for e, value in limits)
    return {name: count / replicates for name, count in counts.items()}


def deviations(kind: str, sd: float) -> np.ndarray:
    """(POINTS,) the standard deviation of a seed's effect at every checkpoint; its mean square is sd²."""
    size = np.ones(POINTS)
    if kind == "uneven":
        size[2:5] = 4.0
    size[0] = 0.0
    return sd * size / np.sqrt(np.mean(size[1:] ** 2))


@lru_cache
def expected(truth: str, sds: tuple[float, ...]) -> np.ndarray:
    """(POINTS,) the mean score over items and seeds. Chances are cut at 0 and 1, which `sds` shift."""
    rng = np.random.default_rng(0)
    p = rng.beta(1.2, 0.6, 50_000).clip(1e-4, 1 - 1e-4)
    logits = np.log(p / (1 - p)) + 0.5 * rng.standard_normal(len(p))
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    shifts = shape_of(truth)
    return np.array(
        [
            sum(
                w * np.mean((1 / (1 + np.exp(-logits - shift)) + sd * z).clip(0, 1))
                for z, w in zip(nodes, weights / weights.sum(), strict=True)
            )
            for shift, sd in zip(shifts, sds, strict=True)
        ]
    )


def moved(
    rng: np.random.Generator, seeds: int, sds: np.ndarray, truth: str, items: int, *, shared: bool = False
) -> np.ndarray:
    """(seeds, items, POINTS) scores of one sample an item; the base is common to all seeds."""
    p = rng.beta(1.2, 0.6, items).clip(1e-4, 1 - 1e-4)
    logits = np.log(p / (1 - p))[:, None] + shape_of(truth) + 0.5 * rng.standard_normal((items, POINTS))
    effects = rng.standard_normal((seeds, 1, 1 if shared else POINTS)) * sds
    drawn = rng.random((seeds, items, POINTS)) < (1 / (1 + np.exp(-logits)) + effects).clip(0, 1)
    drawn[:, :, 0] = drawn[0, :, 0]
    return drawn.astype(float)


def shape_of(truth: str) -> np.ndarray:
    """(POINTS,) the shift in logits at every checkpoint."""
    depth, where = TRUTHS[truth]
    curve = np.zeros(POINTS)
    if depth:
        curve[list(where)] = logit_shift(depth)
    return curve


def confounds(seeds: int, sd: float, replicates: int, steps: int = 6, items: int = 200) -> float:
    """Two-sided size of the test that less than half of a fall is left, the step being chosen by the data."""
    own, one = np.arange(items), np.zeros(items, dtype=np.int64)
    spec, pool = AnalysisSpec(bootstrap=500), np.repeat([0, 1], steps)
    rejected = 0
    for replicate in range(replicates):
        rng = np.random.default_rng([replicate, seeds, steps])
        shape = (1, items, 2 * steps)
        x = np.repeat([0.2, 0.1], steps) + rng.normal(0, 0.4, shape)
        x = x + rng.normal(0, sd, (seeds, 1, 2 * steps)) + rng.normal(0, 0.2, (seeds, *shape[1:]))
        both = joint_means(x, own, one, pool)
        fall, left = (both.linear(np.eye(2 * steps)[:, part]) for part in (pool == 0, pool == 1))
        rejected += remainder(fall, left, int(np.argmax(fall.mean)), spec).p < 0.05
    return rejected / replicates


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
    arms = [(1, 0.0, "independent")]
    arms += [(seeds, sd, "independent") for seeds in (2, 3) for sd in (0.0, 0.05, 0.10, 0.15)]
    arms += [(seeds, 0.10, kind) for seeds in (2, 3) for kind in ("level", "uneven")]
    by_seeds = {
        f"seeds={seeds},sd={sd},{kind}": {
            truth: seeded(seeds, sd, truth, replicates, kind=kind) for truth in TRUE_NAMES
        }
        for seeds, sd, kind in arms
    }
    halves = {
        f"seeds={seeds},sd={sd}": confounds(seeds, sd, replicates)
        for seeds, sd in ((1, 0.0), (2, 0.0), (2, 0.10), (3, 0.10))
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
                "confounds": halves,
            }
        )
    )


if __name__ == "__main__":
    main()
