"""Learning rate, checkpoint steps and row order, against independent formulations."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.errors import DipscopeError
from dipscope.study import Recipe
from dipscope.train.schedule import checkpoint_steps, lr_at, order, rows_of_step, total_steps


def test_paper_recipe_has_640_steps_and_its_checkpoints():
    recipe = Recipe(epochs=8, batch_size=256)
    assert total_steps(recipe, 20480) == 640
    assert checkpoint_steps("paper", 640) == [10, 20, 40, 80, 160, 320, 480, 640]
    long = [10, 20, 40, 80, 160, 320, 480, 640, 800, 960, 1120, 1280]
    assert checkpoint_steps("paper", 1280) == long and checkpoint_steps("paper", 1300) == [*long, 1300]


def test_total_steps_bounds():
    assert total_steps(Recipe(epochs=1, batch_size=256), 3) == 1
    assert total_steps(Recipe(epochs=3, batch_size=4), 6) == 4
    assert total_steps(Recipe(epochs=3, batch_size=4, max_steps=2), 6) == 2
    with pytest.raises(DipscopeError):
        total_steps(Recipe(), 0)


@pytest.mark.parametrize(
    ("spec", "total", "steps"),
    [
        ("log2", 10, [1, 2, 4, 8, 10]),
        ("log2", 8, [1, 2, 4, 8]),
        ("every:4", 10, [4, 8, 10]),
        ("every:99", 10, [10]),
        ((5, 2, 2, 0), 10, [2, 5, 10]),
        ((), 1, [1]),
        ("paper", 7, [7]),
    ],
)
def test_checkpoint_steps(spec, total, steps):
    assert checkpoint_steps(spec, total) == steps


@pytest.mark.parametrize(
    "spec", ["every:0", "every:", "every:-1", "every:1.5", "every:²", "log3", "", (-1,), (3, 11)]
)
def test_bad_checkpoint_specs_are_explained(spec):
    with pytest.raises(DipscopeError, match="checkpoints"):
        checkpoint_steps(spec, 10)


@given(st.sampled_from(["log2", "paper", "every:3", "every:7", (1,)]), st.integers(1, 3000))
def test_checkpoint_steps_are_ascending_and_end_with_the_last(spec, total):
    steps = checkpoint_steps(spec, total)
    assert steps[-1] == total and steps[0] >= 1
    assert steps == sorted(set(steps))


def test_learning_rate_against_numpy():
    recipe, total = Recipe(lr=2.0, warmup=0.25, schedule="cosine"), 40
    rise = np.arange(1, 11) / 10 * 2.0
    fall = 1.0 + np.cos(np.pi * np.arange(30) / 30)
    np.testing.assert_allclose([lr_at(recipe, s, total) for s in range(1, 41)], [*rise, *fall], rtol=1e-12)
    constant = Recipe(lr=2.0, warmup=0.25, schedule="constant")
    np.testing.assert_allclose([lr_at(constant, s, total) for s in range(1, 41)], [*rise, *[2.0] * 30])


@given(
    st.floats(0, 1),
    st.integers(1, 500),
    st.sampled_from(["cosine", "constant"]),
    st.floats(1e-7, 1),
)
def test_learning_rate_is_positive_bounded_and_unimodal(warmup, total, kind, lr):
    recipe = Recipe(lr=lr, warmup=warmup, schedule=kind)
    rates = [lr_at(recipe, step, total) for step in range(1, total + 1)]
    assert all(0 < rate <= lr and math.isfinite(rate) for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) == pytest.approx(lr)


@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(1, 200), st.integers(1, 70))
def test_every_epoch_holds_every_row_once(seed, epoch, rows, batch):
    first, last = epoch * rows, (epoch + 1) * rows
    stream = np.concatenate(
        [rows_of_step(seed, step, batch, rows) for step in range(first // batch + 1, -(-last // batch) + 1)]
    )
    offset = first - first // batch * batch
    assert sorted(stream[offset : offset + rows]) == list(range(rows))
    assert all(len(rows_of_step(seed, s, batch, rows)) == batch for s in (1, 2, epoch + 1))


def test_order_depends_on_seed_and_epoch_only():
    assert order(0, 0, 50).tolist() != order(0, 1, 50).tolist() != order(1, 0, 50).tolist()
    code = "from dipscope.train.schedule import rows_of_step as r; print(r(7, 900, 6, 50).tolist())"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == str(rows_of_step(7, 900, 6, 50).tolist())
    # A change here would silently change every study that is rerun.
    assert order(0, 0, 10).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
