"""What a step tells: losses by part, changed weights, moments that fell; against plain recomputation."""

import copy
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import tinymodel
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipscope.train import diagnostics
from dipscope.train.diagnostics import Diagnostics, UpdateWatch, spread, summarise
from dipscope.train.loop import train
from dipscope.train.optimizer import make_optimizer, set_precision
from dipscope.train.parts import Parts
from dipscope.train.step import optimizer_step

NUMBERS = st.floats(0, 30, width=32)
ROW = st.tuples(st.lists(NUMBERS, max_size=9), st.lists(NUMBERS, max_size=9), st.lists(NUMBERS, max_size=1))


@given(st.lists(ROW.filter(any), min_size=1, max_size=6))
def test_losses_are_told_by_part(rows):
    losses = [torch.tensor([*thinking, *answer, *eos]) for thinking, answer, eos in rows]
    told = summarise(losses, [Parts(*map(len, row)) for row in rows])
    expected = set()
    for place, name in enumerate(("thinking", "answer")):
        values = sorted(value for row in rows for value in row[place])
        if not values:
            continue
        expected.add(f"loss_{name}")
        assert told[f"loss_{name}"] == pytest.approx(statistics.fmean(values), rel=1e-5, abs=1e-6)
        for share in (10, 50, 90, 99):
            expected.add(f"loss_{name}_q{share}")
            at = share / 100 * (len(values) - 1)  # linear between neighbours
            low, high = values[int(at)], values[min(int(at) + 1, len(values) - 1)]
            wanted = low + (at - int(at)) * (high - low)
            assert told[f"loss_{name}_q{share}"] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert set(told) == expected


@given(st.integers(0, 5_000), st.integers(1, 600))
def test_a_sample_is_spread_and_without_repeats(count, limit):
    places = spread(count, limit)
    if count <= limit:
        assert places is None
        return
    assert len(places) == limit and places[0] >= 0 and places[-1] < count
    assert (np.diff(places) > 0).all()
    stretch = places * limit // count  # one in each stretch, up to its rounded edges
    assert np.abs(stretch - np.arange(limit)).max() <= 1


def test_a_sample_meets_every_column():
    columns = spread(1024 * 1024, 65_536) % 1024
    hits = np.bincount(columns, minlength=1024)
    assert hits.min() > 32 and hits.max() < 128  # 64 on average


def optimizer_of(weights, **settings):
    parameters = [torch.nn.Parameter(w) for w in weights]
    return parameters, torch.optim.AdamW(parameters, **settings)


def test_changed_weights_are_counted_by_their_number():
    generator = torch.Generator().manual_seed(0)
    large, small = (torch.randn(n, generator=generator) for n in (700_000, 100))
    (big, little), optimizer = optimizer_of([large, small], lr=0.1, weight_decay=0.0)
    watch = UpdateWatch(optimizer)
    big.grad = (torch.arange(700_000) % 7 == 0).float()  # one in seven moves
    little.grad = torch.ones(100)
    watch.before()
    optimizer.step()
    told = watch.after()
    assert told["changed"] == pytest.approx((100_000 + 100) / 700_100, abs=0.005)
    assert "decayed" not in told  # there was nothing before


def test_rounding_shows_in_the_share_of_changed_weights():
    generator = torch.Generator().manual_seed(1)
    start, shares = torch.randn(200, 300, generator=generator), {}
    for dtype in (torch.float32, torch.bfloat16):
        (weight,), optimizer = optimizer_of([start.to(dtype)], lr=1e-4, foreach=True)
        watch = UpdateWatch(optimizer)
        for _ in range(3):
            weight.grad = torch.randn(200, 300, generator=torch.Generator().manual_seed(2)).to(dtype)
            before = weight.detach().clone()
            watch.before()
            optimizer.step()
            shares[dtype] = watch.after()["changed"]
            assert shares[dtype] == (before != weight).double().mean().item()  # all are in the sample
    assert shares[torch.float32] > 0.99 and shares[torch.bfloat16] < 0.2


def test_second_moments_fall_in_fp32_and_stay_in_bf16():
    for dtype, low, high in ((torch.float32, 0.999, 1.0), (torch.bfloat16, 0.0, 0.001)):
        (weight,), optimizer = optimizer_of([torch.ones(50, 60, dtype=dtype)], lr=1e-3, foreach=True)
        watch = UpdateWatch(optimizer)
        for step in range(4):
            # A first gradient a hundred times those that follow: from then on every moment has to fall.
            weight.grad = torch.full((50, 60), 1.0 if step == 0 else 0.01, dtype=dtype)
            watch.before()
            optimizer.step()
            told = watch.after()
        assert low <= told["decayed"] <= high


def test_shards_add_up_to_the_whole():
    """Two halves of a matrix, and a vector that both hold whole, watched by two ranks."""
    generator = torch.Generator().manual_seed(3)
    matrix, vector = torch.randn(40, 50, generator=generator), torch.randn(50, generator=generator)
    moved = torch.rand(40, 50, generator=generator) < 0.3

    def told(shard, moves, total):
        (own, whole), optimizer = optimizer_of([shard, vector.clone()], lr=0.1, weight_decay=0.0)
        watch = UpdateWatch(optimizer, 1, total)
        own.grad, whole.grad = moves.float(), torch.zeros(50)
        watch.before()
        optimizer.step()
        return watch.after()["changed"]

    sent = []
    for half in range(2):
        rows = slice(20 * half, 20 * half + 20)
        told(matrix[rows].clone(), moved[rows], lambda numbers: sent.append(numbers) or numbers)
    sums = [a + b for a, b in zip(*sent, strict=True)]
    assert sums[0] / 2000 == moved.double().mean().item()
    assert told(matrix.clone(), moved, list) == moved.sum().item() / 2050


def test_looking_changes_nothing():
    rows, recipe = tinymodel.examples(12), tinymodel.recipe()
    plain = tinymodel.model()
    watched = copy.deepcopy(plain)
    from dipscope.train import attention

    weights = []
    for model, look in ((plain, False), (watched, True)):
        attention.attach(model)
        set_precision(model, recipe)
        optimizer = make_optimizer(model, recipe)
        diagnostic = Diagnostics(model, optimizer, "no folder", recipe) if look else None
        for step in range(1, 5):
            optimizer_step(model, optimizer, rows, recipe, 0, step, 4, diagnostic)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_reports_everything(tmp_path):
    seen = []
    base = tinymodel.directory(tmp_path / "base")
    rows = tinymodel.examples(12)
    train(base, rows, tinymodel.recipe(max_steps=3, checkpoints=(3,)), 0, tmp_path / "out", seen.append)
    last = seen[-1].metrics
    for name in ("thinking", "answer"):
        assert last[f"loss_{name}_q10"] <= last[f"loss_{name}_q50"] <= last[f"loss_{name}_q99"]
    thinking, answer = (sum(len(r.target_ids) for r in rows) - 24, 12)  # one word of answer, one end a row
    assert thinking > answer
    assert 0 < last["changed"] <= 1 and 0 < last["decayed"] <= 1
    assert 0 < last["mfu"] < 1 and last["memory"] > 1e6
    assert last["tokens_per_second"] > last["supervised_per_second"] > 0


def test_a_step_without_thinking_says_nothing_of_it():
    assert set(summarise([torch.ones(3)], [Parts(0, 2, 1)])) == {
        "loss_answer", "loss_answer_q10", "loss_answer_q50", "loss_answer_q90", "loss_answer_q99",
    }  # fmt: skip


def test_nothing_is_guessed_for_an_unknown_device(monkeypatch):
    monkeypatch.setattr(diagnostics.hardware, "peak_rate", lambda device, bf16: None)
    model = tinymodel.model()
    look = Diagnostics(model, make_optimizer(model, tinymodel.recipe()), "no folder", tinymodel.recipe())
    look.update = SimpleNamespace(after=dict)
    told = look.after(np.array([0]), tinymodel.examples(1), [torch.ones(3)], 0.0)
    assert "mfu" not in told and not any(name.startswith("loss") for name in told)
