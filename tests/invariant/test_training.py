"""What the loop must not change: packing, passes and chunks leave loss and gradient as they are."""

import copy
import itertools

import pytest
import tinymodel
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from dipscope.data.tokenize import Example
from dipscope.errors import DipscopeError
from dipscope.train import attention, checkpoints, loss
from dipscope.train.loop import train, train_model
from dipscope.train.packing import input_length, pack
from dipscope.train.schedule import lr_at, rows_of_step
from dipscope.train.step import accumulate, mean
from dipscope.weights import weights_hash

torch.set_num_threads(1)


def gradient(model, rows, pack_tokens):
    model.zero_grad()
    value = mean(accumulate(model, rows, tinymodel.recipe(pack_tokens=pack_tokens)))
    return value, {name: p.grad.clone() for name, p in model.named_parameters()}


def naive(model, rows, implementation):
    """Every document alone, through transformers' own attention, logits and cross entropy."""
    model.set_attn_implementation(implementation)
    model.zero_grad()
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.target_ids])
        labels = torch.tensor([(-100,) * len(row.prompt_ids) + row.target_ids])
        mean = model(input_ids=ids, labels=labels, use_cache=False).loss
        total = total + mean * len(row.target_ids)
    total = total / sum(len(row.target_ids) for row in rows)
    total.backward()
    return total.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(one, other, relative=1e-5):
    assert one[0] == pytest.approx(other[0], rel=relative)
    for name, expected in other[1].items():
        gap = (one[1][name] - expected).norm() / expected.norm()
        assert gap < relative, f"{name}: {gap}"


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_gradient_is_that_of_documents_alone(family, implementation):
    model, rows = tinymodel.model(family), tinymodel.examples(9)
    reference = naive(copy.deepcopy(model), rows, implementation)
    attention.attach(model)
    for pack_tokens in (16, 64, 100, 8192):
        assert_same(gradient(model, rows, pack_tokens), reference)


def test_gradient_without_grouped_heads_and_with_equal_lengths():
    model = tinymodel.model(num_key_value_heads=4)
    rows = [Example((1, 2, 3), (4 + i, 5, 6, 7), False) for i in range(5)] + tinymodel.examples(3)
    reference = naive(copy.deepcopy(model), rows, "eager")
    attention.attach(model)
    assert_same(gradient(model, rows, 8192), reference)


def test_rows_of_one_pass_do_not_see_each_other():
    model = tinymodel.model()
    attention.attach(model)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = attention.hidden_states(model, ids, (7, 13))
        changed = ids.clone()
        changed[0, :7] += 20
        after = attention.hidden_states(model, changed, (7, 13))
    assert torch.equal(before[0, 7:], after[0, 7:])
    assert not torch.allclose(before[0, :7], after[0, :7])


def test_chunked_loss_is_the_whole_loss(monkeypatch):
    model, rows = tinymodel.model(), tinymodel.examples(9)
    attention.attach(model)
    whole = gradient(model, rows, 8192)
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 48 * 7)
    assert_same(gradient(model, rows, 8192), whole)


def test_chunked_loss_never_makes_all_logits(monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 48 * 7)
    head = tinymodel.model().get_output_embeddings()
    seen = []
    head.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    hidden = torch.randn(100, 32, requires_grad=True)
    loss.token_losses(hidden, head, torch.arange(100) % 48).sum().backward()
    assert max(seen) == 7 and sum(seen) == 200


def test_a_model_with_another_mask_is_refused():
    config = Qwen3Config(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=0,
    )  # fmt: skip
    with pytest.raises(DipscopeError, match="sliding window"):
        attention.attach(Qwen3ForCausalLM(config))


def test_a_model_that_mixes_documents_is_refused(monkeypatch):
    def leaky(module, query, key, value, mask, scaling=None, **rest):
        rest.pop("document_lengths", None)
        rest.pop("sliding_window", None)
        n = query.shape[2]
        return exact(module, query, key, value, mask, scaling=scaling, document_lengths=(n,), **rest)

    exact = attention.document_attention
    monkeypatch.setattr(attention, "document_attention", leaky)
    with pytest.raises(DipscopeError, match="differ"):
        attention.attach(tinymodel.model())


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 80))
def test_packing_holds_each_row_once_within_the_limit(lengths, limit):
    passes = pack(lengths, limit)
    assert sorted(itertools.chain(*passes)) == list(range(len(lengths)))
    for members in passes:
        assert sum(lengths[i] for i in members) <= limit or len(members) == 1
    # Two passes that both stay half empty would have been one.
    assert sum(2 * sum(lengths[i] for i in members) <= limit for members in passes) <= 1


def test_optimizer_follows_a_plain_loop(tmp_path):
    """Six steps against AdamW as its paper has it, written out, with a gradient made row by row."""
    base = tinymodel.directory(tmp_path / "base")
    rows = tinymodel.examples(10)
    recipe = tinymodel.recipe(max_steps=6, save_dtype="fp32", weight_decay=0.1, clip=0.5)
    (folder,) = train(base, rows, recipe, 3, tmp_path / "out")
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in reference.named_parameters()}
    for step in range(1, 7):
        batch = [rows[i] for i in rows_of_step(3, step, 6, 10)]
        _, grads = naive(reference, batch, "sdpa")
        norm = torch.sqrt(sum(g.square().sum() for g in grads.values()))
        lr = lr_at(recipe, step, 6)
        with torch.no_grad():
            for name, p in reference.named_parameters():
                g = grads[name] * min(1.0, 0.5 / (norm.item() + 1e-6))
                first, second = moments[name]
                first.mul_(0.9).add_(g, alpha=0.1)
                second.mul_(0.999).add_(g * g, alpha=0.001)
                if p.ndim == 2:
                    p.mul_(1 - lr * 0.1)
                p -= lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    trained = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for (name, p), (_, q) in zip(reference.named_parameters(), trained.named_parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-3, atol=2e-4, msg=name)


def test_reports_say_what_happened(tmp_path):
    base, rows = tinymodel.directory(tmp_path / "base"), tinymodel.examples(10)
    seen = []
    recipe = tinymodel.recipe(max_steps=3)
    train(base, rows, recipe, 0, tmp_path / "out", seen.append)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    batch = [rows[i] for i in rows_of_step(0, 1, 6, 10)]
    value, grads = naive(model, batch, "eager")
    assert [r.step for r in seen] == [1, 2, 3] and {r.total for r in seen} == {3}
    assert seen[0].loss == pytest.approx(value, rel=1e-5)
    norm = torch.sqrt(sum(g.square().sum() for g in grads.values())).item()
    assert seen[0].grad_norm == pytest.approx(norm, rel=1e-4)
    assert seen[0].tokens == sum(map(input_length, batch))
    assert seen[0].lr == lr_at(recipe, 1, 3)
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 3


def test_bf16_compute_keeps_fp32_weights_and_stays_close(tmp_path):
    model, rows = tinymodel.model(), tinymodel.examples(9)
    attention.attach(model)
    exact = gradient(model, rows, 64)
    model.zero_grad()
    value = mean(accumulate(model, rows, tinymodel.recipe(precision="bf16")))
    assert value == pytest.approx(exact[0], rel=2e-2) and value != exact[0]
    for name, p in model.named_parameters():
        assert p.dtype == p.grad.dtype == torch.float32
        assert (p.grad - exact[1][name]).norm() / exact[1][name].norm() < 0.1


def test_learns_and_the_saved_model_works_in_transformers(tmp_path):
    base, rows = tinymodel.directory(tmp_path / "base"), tinymodel.examples(8)
    seen = []
    recipe = tinymodel.recipe(max_steps=60, batch_size=8, epochs=60, checkpoints=(60,), save_dtype="bf16")
    (folder,) = train(base, rows, recipe, 0, tmp_path / "out", seen.append)
    assert seen[-1].loss < 0.5 * seen[0].loss
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.bfloat16
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert AutoTokenizer.from_pretrained(folder).chat_template == tinymodel.TEMPLATE


def test_a_fresh_model_can_be_trained_from_scratch(tmp_path):
    source = tmp_path / "source"
    tinymodel.tokenizer().save_pretrained(source)
    recipe = tinymodel.recipe(max_steps=2)
    rows = tinymodel.examples(6)
    for family in ("qwen3", "llama"):
        model = tinymodel.model(family)
        (folder,) = train_model(model, source, rows, recipe, 0, tmp_path / family)
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ids = torch.arange(12)[None]
        with torch.no_grad():
            gap = (saved.eval()(ids).logits - model.eval()(ids).logits).abs().max()
        assert gap < 0.2, "the model in memory is the one saved, up to rounding to bf16"


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    model = tinymodel.model()
    recipe = tinymodel.recipe(lr=1e30, checkpoints=(20,))
    with pytest.raises(DipscopeError, match=r"not finite at step \d"):
        train_model(model, tmp_path, tinymodel.examples(30), recipe, 0, tmp_path / "out")


def test_empty_rows_are_refused(tmp_path):
    for row in (Example((1,), (), True), Example((), (1,), False)):
        with pytest.raises(DipscopeError, match="no prompt or no target"):
            train_model(tinymodel.model(), tmp_path, [row], tinymodel.recipe(), 0, tmp_path)


def test_hash_of_weights_ignores_files_and_metadata(tmp_path):
    tensors = {"b": torch.ones(3, dtype=torch.bfloat16), "a": torch.arange(6.0).reshape(2, 3)}
    for name in ("one", "two", "other", "shape"):
        (tmp_path / name).mkdir()
    save_file(tensors, tmp_path / "one" / "model.safetensors", metadata={"format": "pt"})
    for name, value in tensors.items():
        save_file({name: value}, tmp_path / "two" / f"part-{name}.safetensors")
    save_file(tensors | {"a": tensors["a"] + 1}, tmp_path / "other" / "model.safetensors")
    save_file(tensors | {"a": tensors["a"].reshape(3, 2)}, tmp_path / "shape" / "model.safetensors")
    one, two, other, shape = (weights_hash(tmp_path / n) for n in ("one", "two", "other", "shape"))
    assert one == two and len({one, other, shape}) == 3 and len(one) == 16


def test_equal_training_gives_equal_hashes(tmp_path):
    base, rows = tinymodel.directory(tmp_path / "base"), tinymodel.examples(10)
    recipe = tinymodel.recipe(max_steps=3)
    hashes = [
        checkpoints.verify(train(base, rows, recipe, seed, tmp_path / f"out{n}")[-1])
        for n, seed in enumerate((0, 0, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert load_file(tmp_path / "out0" / "step-000003" / "model.safetensors")
