"""A run that is stopped keeps its state, says where, and stops again at once when it is run again."""

import pytest
import ranks
import tinymodel
import torch

from dipscope.train import health
from dipscope.train.loop import train

torch.set_num_threads(1)
ROWS = tinymodel.examples(16)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinymodel.directory(tmp_path_factory.mktemp("base"))


def stopped(base, out, recipe):
    """What a run says when it is stopped, the steps it did, and its notes."""
    seen, notes = [], []
    with pytest.raises(health.Unhealthy) as caught:
        train(base, ROWS, recipe, 0, out, lambda report: seen.append(report.step), on_note=notes.append)
    return str(caught.value), seen, notes


def points(out):
    return [path.name for path in sorted((out / "resume").iterdir())]


@pytest.mark.parametrize("steps", [(2, 20), (2, 9, 20)], ids=["between checkpoints", "at a checkpoint"])
def test_an_explosion_keeps_the_state_of_its_step_and_is_found_again_at_once(
    base, tmp_path, steps, monkeypatch
):
    monkeypatch.setattr(health, "EXPLODED", 0.0)
    check = health.Health._check_explosion
    monkeypatch.setattr(health.Health, "_check_explosion", lambda it, n, loss: check(it, n, 1 + 9 * (n > 1)))
    recipe = tinymodel.recipe(max_steps=20, epochs=20, resume_every=4, checkpoints=steps)
    said, seen, notes = stopped(base, tmp_path, recipe)
    assert "the loss has exploded" in said and str(tmp_path / "resume") in said
    assert seen == list(range(1, 9)) and notes == [] and points(tmp_path) == ["000009"]
    assert stopped(base, tmp_path, recipe) == (said, [], [])
    assert points(tmp_path) == ["000009"]
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 9


def test_a_gradient_that_is_not_finite_keeps_the_state_before_it(base, tmp_path):
    recipe = tinymodel.recipe(
        lr=1e30, warmup=1.0, max_steps=20, epochs=20, checkpoints=(1, 20), precision="fp32"
    )
    said, seen, _ = stopped(base, tmp_path, recipe)
    assert seen and "not finite" in said and said.startswith(str(tmp_path / "resume"))
    assert points(tmp_path) == [f"{len(seen):06d}"]
    before = (tmp_path / "resume" / points(tmp_path)[0]).stat().st_ino
    assert stopped(base, tmp_path, recipe) == (said, [], [])
    assert (tmp_path / "resume" / points(tmp_path)[0]).stat().st_ino == before  # not written anew


def test_two_processes_keep_the_state_together_and_stop_again_at_once(base, tmp_path):
    recipe = tinymodel.recipe(
        lr=1e30, warmup=1.0, max_steps=20, epochs=20, checkpoints=(1, 20), precision="fp32"
    )
    said, seen, _ = stopped(base, tmp_path / "alone", recipe)
    with ranks.Ranks(2) as two:
        for _ in range(2):
            with pytest.raises(health.Unhealthy) as caught:
                two(ranks.train, base, ROWS, recipe, tmp_path / "two")
            assert str(caught.value) == said.replace("alone", "two")
            assert points(tmp_path / "two") == points(tmp_path / "alone") == [f"{len(seen):06d}"]
