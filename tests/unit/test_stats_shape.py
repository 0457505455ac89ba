"""The shape of curves: calibration of the dip test, names, and selection-corrected depth."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.stats.bands import JointMeans, joint_means
from dipscope.stats.shape import classify, describe, dip_test, evidence, split_halves, trough_contrasts

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import calibration

MARGIN = 0.02


def curve(truth: list[float], n: int = 400, noise: float = 0.15, seed: int = 0) -> JointMeans:
    rng = np.random.default_rng(seed)
    x = np.array(truth) + rng.normal(0, 0.3, (n, 1)) + rng.normal(0, noise, (n, len(truth)))
    return joint_means(x[None], np.arange(n), np.zeros(n, int))


def label(means: JointMeans) -> str:
    c = describe(means, margin=MARGIN, draws=1000)
    return classify(c, evidence([c], MARGIN)[0], margin=MARGIN, alpha=0.05)


@pytest.mark.parametrize(
    ("truth", "name"),
    [
        ([0.6, 0.4, 0.3, 0.5, 0.6], "dip-and-recover"),
        ([0.5, 0.4, 0.3, 0.5, 0.7], "dip-and-overshoot"),
        ([0.7, 0.4, 0.2, 0.3, 0.4], "partial-recovery"),
        ([0.7, 0.6, 0.4, 0.3, 0.3], "fall-and-stay"),
        ([0.7, 0.6, 0.5, 0.4, 0.3], "fall-and-stay"),
        ([0.3, 0.4, 0.5, 0.6, 0.6], "rise"),
        ([0.3, 0.3, 0.3, 0.3, 0.6], "rise"),
        ([0.3, 0.5, 0.7, 0.5, 0.3], "rise-then-fall"),
    ],
)
def test_shapes_get_their_names(truth: list[float], name: str) -> None:
    assert label(curve(truth, n=3000)) == name


def test_flat_needs_evidence() -> None:
    assert label(curve([0.5] * 6, n=3000, noise=0.1)) == "flat"
    assert label(curve([0.5] * 6, n=60, noise=0.3, seed=1)) == "inconclusive"


def test_quantities_of_a_dip() -> None:
    c = describe(curve([0.6, 0.45, 0.3, 0.5, 0.58], n=1000), margin=MARGIN)
    assert c.trough == c.trough_low == c.trough_high == 2
    assert c.depth is not None and c.depth[1] < 0.3 < c.depth[2]
    assert c.recovery is not None and c.recovery[1] < 0.28 < c.recovery[2]
    assert c.net.low < -0.02 < c.net.high
    assert c.p_no_dip == 1.0 and not c.small_n
    assert describe(curve([0.6, 0.6, 0.6], n=3000, noise=0.1), margin=MARGIN).p_no_dip < 0.01


def test_recovered_needs_to_be_shown() -> None:
    assert label(curve([0.6, 0.3, 0.6], n=2000, noise=0.1)) == "dip-and-recover"
    assert label(curve([0.6, 0.2, 0.58], n=60, noise=0.2)) == "dip"
    assert label(curve([0.6, 0.3, 0.5], n=2000, noise=0.1)) == "partial-recovery"


def test_a_fall_stays_only_where_a_rise_is_excluded() -> None:
    assert label(curve([0.7, 0.6, 0.4, 0.3, 0.3], n=3000)) == "fall-and-stay"
    assert label(curve([0.7, 0.6, 0.4, 0.3, 0.3])) == "fall"


def test_two_points_have_no_trough() -> None:
    c = describe(curve([0.3, 0.6]), margin=MARGIN)
    assert (c.trough, c.depth, c.p_dip) == (None, None, 1.0)
    assert label(curve([0.3, 0.6])) == "rise"
    with pytest.raises(ValueError, match="two points"):
        describe(curve([0.3]), margin=MARGIN)


def test_upside_down_is_rise_then_fall() -> None:
    means = curve([0.6, 0.45, 0.5, 0.58], noise=0.6)
    flipped = JointMeans(-means.mean, -means.rows)
    a, b = describe(means, margin=MARGIN), describe(flipped, margin=MARGIN)
    assert (a.p_dip, a.p_hump) == pytest.approx((b.p_hump, b.p_dip))


def test_p_falls_below_the_resolution_of_the_bootstrap() -> None:
    pairs = curve([0.6, 0.2, 0.6]).linear(trough_contrasts(3))
    assert 0 < dip_test(pairs, 100, 0).p < 1e-8


def test_split_halves_remove_the_winners_curse() -> None:
    rng, naive, corrected = np.random.default_rng(7), [], []
    for replicate in range(60):
        x = 0.5 + rng.normal(0, 0.4, (120, 10))  # flat: the true depth is 0
        one = np.zeros(120, int)
        c = describe(
            joint_means(x[None], np.arange(120), one),
            split_halves(x, one, 50, replicate),
            margin=MARGIN,
            draws=100,
        )
        assert c.depth is not None and c.depth_corrected is not None
        naive.append(c.depth[0])
        corrected.append(c.depth_corrected)
    assert np.mean(naive) > 0.04
    assert abs(np.mean(corrected)) < 0.02


def test_halves_average_to_the_whole() -> None:
    x = np.random.default_rng(8).random((41, 5))
    halves = split_halves(x, np.repeat([0, 1], [20, 21]), 2000, 0)
    assert np.abs(halves.mean(axis=0)).max() < 0.01


@pytest.mark.parametrize("truth", ["flat", "fall_small", "fall_large", "jump_small", "jump_large"])
def test_size_of_the_dip_test(truth: str) -> None:
    """Nominal 5 %: 200 replicates reject more than 9.5 % with probability below .005 at size .05."""
    assert calibration.rates(200, 1, truth, 200, draws=400)["rejected"] <= 0.095


def test_power_and_what_the_eye_would_say() -> None:
    dip = calibration.rates(500, 3, "dip", 60, draws=400)
    assert dip["rejected"] >= 0.6
    assert calibration.rates(500, 3, "flat", 60, draws=400)["looks"] >= 0.7


def test_back_at_the_base_needs_dip_and_return() -> None:
    """The p-value of the claim is never below that of either half, and one curve's is its own."""
    truths = [0.6, 0.3, 0.6], [0.6, 0.3, 0.57], [0.6, 0.3, 0.5], [0.6, 0.6, 0.6]
    sizes = 4000, 60, 2000, 4000
    shapes = [
        describe(curve(t, n=n, noise=0.1), margin=MARGIN, draws=400)
        for t, n in zip(truths, sizes, strict=True)
    ]
    for shape, p in zip(shapes, evidence(shapes, MARGIN), strict=True):
        alone = evidence([shape], MARGIN)[0]
        assert alone.returns == max(shape.p_dip, shape.net.p_greater(-MARGIN))
        assert alone.against == min(1.0, 2 * min(shape.p_no_dip, shape.net.p_less(-MARGIN)))
        assert p.returns >= max(p.dip, alone.returns) and p.against >= alone.against
    found = evidence(shapes, MARGIN)
    assert [p.returns < 0.05 for p in found] == [True, False, False, False]
    assert [p.against < 0.025 for p in found] == [False, False, True, True]


def test_a_dip_of_the_margin_is_not_excluded() -> None:
    """At the boundary, a dip of exactly the margin, the exclusion rejects no more often than it may."""
    hits = 0
    for replicate in range(300):
        means = curve([0.5, 0.48, 0.5], n=400, noise=0.1, seed=replicate)
        hits += describe(means, margin=MARGIN, draws=100).p_no_dip < 0.05
    assert hits / 300 <= 0.08


@given(st.integers(2, 3), st.integers(2, 40), st.integers(3, 6), st.integers(0, 10**6))
def test_scores_that_hardly_vary_have_a_shape_too(seeds: int, items: int, points: int, draw: int) -> None:
    """All right, all wrong, one item off in one seed: the safety of a base that refuses everything."""
    rng = np.random.default_rng(draw)
    x = np.full((seeds, items, points), float(rng.integers(2)))
    for _ in range(rng.integers(4)):
        x[rng.integers(seeds), rng.integers(items), rng.integers(1, points)] = rng.integers(2)
    means = joint_means(x, np.arange(items), np.zeros(items, int))
    df = means.linear(trough_contrasts(points)).df()
    assert np.all(df >= 1) and np.all(np.isfinite(df))
    c = describe(means, margin=MARGIN, draws=100)
    assert np.isfinite([c.p_dip, c.p_hump, c.p_no_dip, c.lowest, c.highest, c.net.low, c.net.high]).all()
    assert c.net.low <= c.net.value <= c.net.high
