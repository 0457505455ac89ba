"""Paired statistics against SciPy and naive references."""

from itertools import product

import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as hs

from dipscope.stats.bands import JointMeans, band, joint_means, max_test, sup_t
from dipscope.stats.distributions import t_quantile, t_sf, t_to_z, z_to_t
from dipscope.stats.paired import contrast, holm, mcnemar_midp, sign_flip


@pytest.mark.parametrize("df", [1, 1.5, 2, 5, 29, 99, 1000, 1e5])
def test_student_t_matches_scipy(df: float) -> None:
    t = np.array([-5.0, -0.3, 0.0, 0.1, 1.0, 3.0, 10.0, 30.0])
    np.testing.assert_allclose(t_sf(t, df), st.t.sf(t, df), rtol=1e-8, atol=1e-14)
    for p in (0.5, 0.6, 0.9, 0.975, 0.999, 1 - 1e-7):
        assert float(t_quantile(p, df)) == pytest.approx(st.t.ppf(p, df), rel=1e-6, abs=1e-9)


@given(hs.floats(-8, 8), hs.floats(1, 500))
def test_t_and_z_are_inverse(z: float, df: float) -> None:
    assert float(t_to_z(z_to_t(z, df), df)) == pytest.approx(z, abs=1e-6)


def test_contrast_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40) + 0.1
    c = contrast(joint_means((b - a)[None, :, None], np.arange(40), np.zeros(40, int)))
    reference = st.ttest_rel(b, a)
    interval = reference.confidence_interval(0.95)
    assert (c.value, c.p) == pytest.approx((np.mean(b - a), reference.pvalue))
    assert (c.low, c.high) == pytest.approx((interval.low, interval.high))
    # Seen at the two-sided 5 % level by a normal statistic in 80 % of draws.
    assert st.norm.sf(st.norm.ppf(0.975), loc=c.mde / st.sem(b - a)) == pytest.approx(0.8, abs=0.001)
    assert c.p_greater(0.05) == pytest.approx(st.ttest_1samp(b - a, 0.05, alternative="greater").pvalue)
    sides = [
        st.ttest_1samp(b - a, -0.3, alternative="greater"),
        st.ttest_1samp(b - a, 0.3, alternative="less"),
    ]
    assert c.p_equivalent(0.3) == pytest.approx(max(s.pvalue for s in sides))


def test_cluster_robust_error_matches_the_formula() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
    d = rng.normal(size=12)[cluster] + 0.3 * rng.normal(size=len(cluster))
    joint = joint_means(d[None, :, None], cluster, np.zeros(len(d), int))
    sums = [np.sum(d[cluster == c] - d.mean()) ** 2 for c in range(12)]
    assert joint.se()[0] == pytest.approx(np.sqrt(12 / 11 * sum(sums)) / len(d))
    assert joint.se()[0] > 1.5 * d.std(ddof=1) / np.sqrt(len(d))


def test_strata_have_equal_weight() -> None:
    rng = np.random.default_rng(2)
    small, large = rng.random(20), rng.random(200) + 1
    x = np.concatenate([small, large])
    joint = joint_means(x[None, :, None], np.arange(220), np.repeat([0, 1], [20, 200]))
    assert joint.mean[0] == pytest.approx((small.mean() + large.mean()) / 2)
    variance = (small.var(ddof=1) / 20 + large.var(ddof=1) / 200) / 4
    assert joint.se()[0] == pytest.approx(np.sqrt(variance))


def test_unobserved_items_leave_only_their_column() -> None:
    x = np.array([[0.0, 1.0], [1.0, np.nan], [1.0, 0.0], [0.0, 0.0]])
    joint = joint_means(x[None], np.arange(4), np.zeros(4, int))
    assert joint.mean == pytest.approx([0.5, 1 / 3])


def test_training_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    item = rng.random((1, 300, 1))
    same = np.repeat(item, 3, axis=0)
    apart = same + np.array([-0.1, 0.0, 0.1])[:, None, None]
    quiet = contrast(joint_means(same, np.arange(300), np.zeros(300, int)))
    loud = contrast(joint_means(apart, np.arange(300), np.zeros(300, int)))
    assert loud.value == pytest.approx(quiet.value)
    assert loud.se**2 == pytest.approx(quiet.se**2 + 0.1**2 / 3)
    assert 2 < loud.df < 3 < quiet.df
    assert loud.high - loud.low > 2 * (quiet.high - quiet.low)


def test_a_difference_without_spread_is_not_certain() -> None:
    c = contrast(joint_means(np.zeros((1, 30, 1)), np.arange(30), np.zeros(30, int)))
    assert c.p == 1.0
    assert c.p_greater(-0.02) > 0.05  # thirty unchanged items do not prove a change below two points
    gone = contrast(joint_means(-np.ones((1, 30, 1)), np.arange(30), np.zeros(30, int)))
    assert gone.p < 1e-6


@pytest.mark.parametrize("n", [1, 5, 9])
def test_sign_flip_enumerates(n: int) -> None:
    d = np.random.default_rng(n).normal(0.5, 1, n)
    naive = [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-12 for signs in product([-1, 1], repeat=n)]
    assert sign_flip(d) == pytest.approx(np.mean(naive))
    assert sign_flip(np.concatenate([d, np.zeros(30)])) == pytest.approx(np.mean(naive))


def test_sign_flip_refuses_what_it_cannot_enumerate() -> None:
    with pytest.raises(ValueError, match="20"):
        sign_flip(np.ones(21))


@given(hs.integers(0, 40), hs.integers(0, 40))
def test_mcnemar_midp(lost: int, gained: int) -> None:
    p = mcnemar_midp(lost, gained)
    if lost + gained:
        exact = st.binomtest(min(lost, gained), lost + gained).pvalue
        point = st.binom.pmf(min(lost, gained), lost + gained, 0.5)
        assert p == pytest.approx(min(1.0, exact - point if lost != gained else 1.0), abs=1e-12)
    else:
        assert p == 1.0


@given(hs.lists(hs.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_rule(ps: list[float]) -> None:
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.3):
        order, rejected = np.argsort(ps, kind="stable"), set()
        for rank, index in enumerate(order):
            if ps[index] * (len(ps) - rank) > level:
                break
            rejected.add(int(index))
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


def test_sup_t_of_independent_columns_is_sidak() -> None:
    joint = JointMeans(np.zeros(6), np.eye(6)[np.repeat(range(6), 500)] / 500)
    exact = st.norm.ppf(0.5 + 0.5 * 0.95 ** (1 / 6))
    assert sup_t(joint, 0.05, 40_000, 0) == pytest.approx(exact, abs=0.04)
    one = JointMeans(np.zeros(6), np.ones((3000, 6)))
    assert sup_t(one, 0.05, 40_000, 0) == pytest.approx(1.96, abs=0.04)


def test_band_holds_everywhere_at_once() -> None:
    truth, inside, rng = np.linspace(0.3, 0.7, 8), 0, np.random.default_rng(5)
    for replicate in range(300):
        ability = rng.normal(0, 0.15, (150, 1))
        x = np.clip(truth + ability + rng.normal(0, 0.2, (150, 8)), -2, 3)
        joint = joint_means(x[None], np.arange(150), np.zeros(150, int))
        low, high = band(joint, sup_t(joint, 0.1, 400, replicate))
        inside += bool(np.all((low < truth) & (truth < high)))
    assert 0.85 <= inside / 300 <= 0.95


def test_max_test_pays_for_its_choice() -> None:
    rng = np.random.default_rng(6)
    hits = 0
    for replicate in range(300):
        joint = joint_means(rng.normal(size=(1, 100, 8)), np.arange(100), np.zeros(100, int))
        hits += max_test(joint, 400, replicate)[1] < 0.05
    assert 0.015 <= hits / 300 <= 0.09
    strong = joint_means(rng.normal(1.0, 1, size=(1, 100, 3)), np.arange(100), np.zeros(100, int))
    assert max_test(strong, 200, 0)[1] < 1e-6
