"""How many processes train changes nothing: gradient, trajectory, checkpoints, resume."""

import itertools
import json

import pytest
import ranks
import test_faithful as faithful
import tinymodel
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dipscope.errors import DipscopeError
from dipscope.train import checkpoints
from dipscope.train.loop import train
from dipscope.train.packing import deal

torch.set_num_threads(1)
ROWS = tinymodel.examples(16)
PAPER = {"loss_norm": "paper", "virtual_world": 2, "virtual_micro": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def two():
    with ranks.Ranks(2) as made:
        yield made


@pytest.fixture(scope="module")
def three():
    with ranks.Ranks(3) as made:
        yield made


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinymodel.directory(tmp_path_factory.mktemp("base"))


def assert_same(one, other, relative):
    for name, expected in other.items():
        gap = (one[name].float() - expected.float()).norm() / expected.float().norm()
        assert gap < relative, f"{name}: {gap}"


@given(st.lists(st.integers(1, 60), min_size=5, max_size=60), st.integers(1, 80), st.integers(1, 5))
def test_each_row_is_dealt_once_and_ranks_have_as_many_passes(lengths, limit, world):
    dealt = deal(lengths, limit, world)
    assert sorted(itertools.chain(*itertools.chain(*dealt))) == list(range(len(lengths)))
    assert len(dealt) == world and len({len(passes) for passes in dealt}) == 1
    for members in itertools.chain(*dealt):
        assert sum(lengths[i] for i in members) <= limit or len(members) == 1
    loads = [sum(lengths[i] for members in passes for i in members) for passes in dealt]
    assert max(loads) - min(loads) <= max(lengths)
    assert min(loads) > 0


CASES = [
    pytest.param(pack, again, tokens, norm, id=f"{pack}-{'again' if again else 'kept'}-{tokens}-{norm}")
    for pack, again, tokens, norm in itertools.product((16, 100, 8192), (0, 1), (0, 7), ("tokens", "paper"))
]


def compare(world, relative=1e-5, family="qwen3", rows=8, **changes):
    expected = ranks.gradient(ROWS[:rows], family, **changes)
    answers = world(ranks.gradient, ROWS[:rows], family, **changes)
    for losses, grads, norm, clipped in answers:
        assert_same(grads, expected[1], relative)
        assert_same(clipped, expected[3], relative)
        assert norm == pytest.approx(expected[2], rel=relative)
        for mine, theirs in zip(losses, expected[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=relative, atol=relative)
    return expected, answers


@pytest.mark.parametrize(("pack", "again", "tokens", "norm"), CASES)
def test_gradient_of_two_processes(two, pack, again, tokens, norm):
    options = PAPER if norm == "paper" else {}
    compare(two, pack_tokens=pack, activation_checkpointing=bool(again), loss_tokens=tokens, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("pack", "again", "tokens", "norm"), CASES)
def test_gradient_of_three_processes(three, pack, again, tokens, norm):
    options = PAPER if norm == "paper" else {}
    compare(three, pack_tokens=pack, activation_checkpointing=bool(again), loss_tokens=tokens, **options)


def test_gradient_with_a_head_of_its_own_and_a_rank_with_an_empty_pass(two):
    dealt = deal([len(r.prompt_ids) + len(r.target_ids) - 1 for r in ROWS[:3]], 16, 2)
    assert [] in itertools.chain(*dealt)
    compare(two, family="llama", rows=3, pack_tokens=16)


def test_two_processes_have_the_gradient_of_the_papers_eight(two):
    for answer in two(ranks.gradient, faithful.rows(2), pack_tokens=100, **faithful.OPTIONS):
        faithful.assert_faithful(answer, 2)


@pytest.mark.parametrize(("precision", "relative"), [("bf16", 2e-2), ("bf16_pure", 5e-2)])
def test_gradient_in_bfloat16(two, precision, relative):
    expected, answers = compare(two, relative, precision=precision, clip=0.5)
    dtype = torch.bfloat16 if precision == "bf16_pure" else torch.float32
    assert {g.dtype for g in answers[0][1].values()} == {dtype}
    assert expected[2] > 0.5


def test_bfloat16_travels_only_where_autocast_would_make_it(two):
    """A pass computes bit for bit what it computes in one process: its losses say so."""
    expected = ranks.gradient(ROWS[:4], precision="bf16", pack_tokens=16)[0]
    for losses, *_ in two(ranks.gradient, ROWS[:4], precision="bf16", pack_tokens=16):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(losses, expected, strict=True))


def test_sums_that_come_out_divided_stop_the_run(two):
    two(ranks.check_sums, 1.0)
    with pytest.raises(DipscopeError, match="is not the sum of theirs"):
        two(ranks.check_sums, 2.0)


def test_an_objection_of_one_rank_is_that_of_all(two):
    assert two(ranks.agreed, ["", "not exact"]) == ["not exact", "not exact"]
    assert two(ranks.agreed, ["", ""]) == ["", ""]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_the_whole_state_has_the_names_values_and_ties_of_one_process(two, family):
    (state, ties), (elsewhere, _) = two(ranks.whole_state, family)
    model = tinymodel.model(family)
    assert elsewhere == {}
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value.to(torch.bfloat16)) and state[name].device.type == "cpu"
    tied = ["model.embed_tokens.weight", "lm_head.weight"]
    assert ties[tied[0]] == (tied if family == "qwen3" else tied[:1])


RECIPE = tinymodel.recipe(
    lr=3e-3, max_steps=20, epochs=20, resume_every=5, checkpoints=(4, 12, 20), save_dtype="fp32"
)


def lines(out):
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def told(out):
    return [{k: v for k, v in line.items() if k not in tinymodel.TIMED} for line in lines(out)]


def hashes(out):
    return [checkpoints.verify(out / f"step-{step:06d}") for step in (4, 12, 20)]


def assert_same_run(out, reference):
    for step in (4, 12, 20):
        one, other = (load_file(o / f"step-{step:06d}" / "model.safetensors") for o in (out, reference))
        assert_same(one, other, 1e-5)
    one, other = lines(out), lines(reference)
    assert [line["step"] for line in one] == list(range(1, 21))
    for mine, theirs in zip(one, other, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        assert mine["tokens"] == theirs["tokens"] and mine["supervised"] == theirs["supervised"]


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    train(base, ROWS, RECIPE, 0, out)
    return out


@pytest.fixture(scope="module")
def together(base, two, tmp_path_factory):
    out = tmp_path_factory.mktemp("together")
    two(ranks.train, base, ROWS, RECIPE, out)
    return out


def test_twenty_steps_of_two_processes(alone, together):
    assert_same_run(together, alone)
    config = [(o / "step-000020" / "config.json").read_bytes() for o in (alone, together)]
    assert config[0] == config[1]


@pytest.mark.slow
def test_twenty_steps_of_three_processes(base, three, alone, tmp_path):
    three(ranks.train, base, ROWS, RECIPE, tmp_path)
    assert_same_run(tmp_path, alone)


def interrupted(base, out, world, stop):
    with pytest.raises(DipscopeError, match="stopped"):
        go_on(base, out, world, stop)
    assert [p.name for p in (out / "resume").iterdir()] == [f"{stop // 5 * 5:06d}"]


def go_on(base, out, world, stop=None):
    ask = world or (lambda function, *arguments: [function(*arguments)])
    return ask(ranks.train, base, ROWS, RECIPE, out, stop)[0]


def test_two_processes_resume_bit_for_bit(base, two, together, tmp_path):
    interrupted(base, tmp_path, two, 13)
    assert go_on(base, tmp_path, two) == []
    assert hashes(tmp_path) == hashes(together)
    assert told(tmp_path) == told(together)
    assert not (tmp_path / "resume").exists()


@pytest.mark.parametrize("order", ["one, then two", "two, then one"])
def test_a_run_goes_on_with_another_number_of_processes(base, two, alone, tmp_path, order):
    first, second = (None, two) if order.startswith("one") else (two, None)
    interrupted(base, tmp_path, first, 13)
    assert go_on(base, tmp_path, second) == []
    assert_same_run(tmp_path, alone)


def test_a_resume_point_in_many_files_is_the_same(base, alone, tmp_path, monkeypatch):
    monkeypatch.setattr("dipscope.train.resume.FILE_BYTES", 5000)
    interrupted(base, tmp_path, None, 13)
    files = list((tmp_path / "resume" / "000010").glob("*.safetensors"))
    assert len(files) > 5 and max(p.stat().st_size for p in files) < 4 * 48 * 32 + 5000
    assert go_on(base, tmp_path, None) == []
    assert hashes(tmp_path) == hashes(alone)


def test_resuming_with_other_data_is_said_in_one_line(base, two, tmp_path):
    interrupted(base, tmp_path, two, 7)
    changed = [*ROWS[:-1], tinymodel.examples(17)[-1]]
    notes, nothing = two(ranks.train, base, changed, RECIPE, tmp_path)
    assert nothing == [] and len(notes) == 1
    assert "belongs to other data; training starts at step 1" in notes[0]


def test_a_gradient_that_is_not_finite_stops_all(base, two, tmp_path):
    recipe = tinymodel.recipe(lr=1e30, checkpoints=(20,), epochs=20, max_steps=20)
    with pytest.raises(DipscopeError, match=r"not finite at step \d"):
        two(ranks.train, base, ROWS, recipe, tmp_path)


def test_fewer_rows_a_step_than_processes_are_refused(base, two, tmp_path):
    with pytest.raises(DipscopeError, match="batch_size 1 is smaller than the 2 processes") as caught:
        two(ranks.train, base, ROWS, tinymodel.recipe(batch_size=1, checkpoints=(1,)), tmp_path)
    assert caught.value.exit_code == 2


def test_a_disk_that_refuses_stops_all(base, two, tmp_path):
    (tmp_path / "resume").write_text("in the way")
    with pytest.raises(DipscopeError, match="cannot write") as caught:
        two(ranks.train, base, ROWS, RECIPE, tmp_path)
    assert caught.value.exit_code == 1
