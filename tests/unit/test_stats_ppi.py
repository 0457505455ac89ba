"""Prediction-powered means: against the formula written out, the classical mean, and simulated truths."""

import numpy as np
import pytest

from dipscope.stats import ppi
from dipscope.stats.distributions import t_quantile
from dipscope.stats.ppi import ppi_mean


def draw(rng, n, more, agree, tilt=0.0):
    """Good and cheap labels of n + more units; the cheap one is a copy with probability `agree`."""
    y = (rng.random(n + more) < 0.3).astype(float)
    f = np.where(rng.random(n + more) < agree, y, (rng.random(n + more) < 0.5 + tilt).astype(float))
    return y[:n], f[:n], f[n:]


def test_with_weight_one_it_is_the_published_estimator():
    rng = np.random.default_rng(0)
    y, f, rest = draw(rng, 40, 300, 0.8)
    made = ppi_mean(y, f, rest, weight=1.0)
    assert made.value == pytest.approx(rest.mean() + (y - f).mean())
    naive = np.sqrt(sum((d - d.mean()) @ (d - d.mean()) / (len(d) - 1) / len(d) for d in (y - f, rest)))
    assert made.se == pytest.approx(naive)
    assert made.low < made.value < made.high and (made.labelled, made.rest) == (40, 300)


def test_without_more_units_it_is_the_plain_mean():
    y, f, _ = draw(np.random.default_rng(1), 30, 0, 0.8)
    made = ppi_mean(y, f, [])
    assert (made.value, made.weight) == (y.mean(), 0.0)
    assert made.se == pytest.approx(y.std(ddof=1) / np.sqrt(30))


def test_a_constant_cheap_label_adds_nothing():
    y = np.array([0.0, 1.0, 1.0])
    assert ppi_mean(y, np.ones(3), np.ones(50)).value == y.mean()


def test_a_perfect_cheap_label_nearly_gives_the_mean_of_all():
    y, _, _ = draw(np.random.default_rng(2), 500, 0, 1.0)
    made = ppi_mean(y[:100], y[:100], y[100:])
    assert made.value == pytest.approx(y.mean(), abs=1e-12)


@pytest.mark.parametrize("good, cheap", [([1.0], [1.0]), ([1.0, 0.0], [1.0]), ([[1.0, 0.0]], [[1.0, 0.0]])])
def test_labels_that_do_not_pair_up_are_refused(good, cheap):
    with pytest.raises(ValueError, match="both labels"):
        ppi_mean(good, cheap, [1.0])


@pytest.mark.parametrize("agree, tilt", [(0.95, 0.0), (0.7, 0.3), (0.0, -0.4)])
def test_intervals_cover_what_is_true_and_are_no_wider_than_without_the_cheap_labels(
    agree, tilt, monkeypatch
):
    """Coverage is nominal within Monte Carlo error; the cheap label alone is far off where it is biased."""
    rng, runs = np.random.default_rng(3), 400
    quantile = t_quantile(0.975, 59)
    monkeypatch.setattr(ppi, "t_quantile", lambda p, df: {(0.975, 59): quantile}[p, df])  # it takes its time
    hits, widths, plain, alone = 0, [], [], []
    for _ in range(runs):
        y, f, rest = draw(rng, 60, 600, agree, tilt)
        made = ppi_mean(y, f, rest)
        hits += made.low <= 0.3 <= made.high
        widths.append(made.se)
        plain.append(y.std(ddof=1) / np.sqrt(60))
        alone.append(rest.mean())
    assert hits / runs >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / runs)
    assert np.mean(widths) <= np.mean(plain) * 1.02
    if agree == 0.95:
        assert np.mean(widths) < 0.5 * np.mean(plain)
    if tilt:
        assert abs(np.mean(alone) - 0.3) > 0.1


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_units_still_give_an_interval(n):
    made = ppi_mean(np.arange(n) % 2, np.arange(n) % 2, [0, 1, 1])
    assert made.low <= made.value <= made.high and 0 <= made.weight <= 1
