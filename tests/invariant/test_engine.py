"""The embedded engine: company does not matter, transformers agrees, draws follow the law, swaps are seen."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dipscope.engine import swap
from dipscope.engine.base import Completion, Request, Sampling, ScoreRequest
from dipscope.engine.decoder import Decoder
from dipscope.engine.local import LocalEngine
from dipscope.engine.sampling import draw, uniform
from dipscope.errors import DipscopeError
from dipscope.weights import weights_hash

VOCAB = 97
SHAPES = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-bias": {"num_key_value_heads": 4, "attention_bias": True},
    "qwen2": {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 24},
}


def save(folder: Path, shape: str, seed: int = 0) -> transformers.PreTrainedModel:
    config = transformers.AutoConfig.for_model(
        shape.split("-")[0],
        **{
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 80,
            "vocab_size": VOCAB,
            "initializer_range": 0.25,
            **SHAPES[shape],
        },
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # gains and biases start at 1 and 0, where a mistake would not show
            torch.nn.init.normal_(parameter, 0.8, 0.3)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=list(SHAPES))
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, save(folder, request.param)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(folder, "qwen3")
    return folder


def requests(count: int, seed: int = 0, sampled: bool = True, longest: int = 100) -> list[Request]:
    """Prompts from one token to `longest`, mixed samplings, some sharing a prompt."""
    rng = np.random.default_rng(seed)
    made: list[Request] = []
    for i in range(count):
        prompt = tuple(rng.integers(0, VOCAB, rng.choice([1, 3, 17, 40, longest])).tolist())
        if made and rng.random() < 0.3:
            prompt = made[-1].prompt_ids
        kind = rng.integers(0, 4) if sampled else 0
        sampling = [
            Sampling(0.0, 1.0, 0, int(rng.integers(1, 50))),
            Sampling(1.0, 1.0, 0, int(rng.integers(1, 50))),
            Sampling(0.7, 0.9, 0, int(rng.integers(1, 50))),
            Sampling(1.3, 0.95, 20, int(rng.integers(1, 50))),
        ][kind]
        made.append(Request(f"r{i}", prompt, sampling, int(rng.integers(0, 2**62)), (5, 6) if i % 2 else ()))
    return made


def run(engine: LocalEngine, wanted: list[Request]) -> dict[str, Completion]:
    done = {completion.key: completion for completion in engine.generate(wanted)}
    assert done.keys() == {request.key for request in wanted}
    return done


def loaded(folder: Path, **options) -> LocalEngine:
    engine = LocalEngine(device="cpu", **options)
    engine.load(folder)
    return engine


def scorings(count: int, seed: int = 0) -> list[ScoreRequest]:
    rng = np.random.default_rng(seed)
    made: list[ScoreRequest] = []
    for i in range(count):
        prompt = tuple(rng.integers(0, VOCAB, rng.integers(1, 70)).tolist())
        if made and rng.random() < 0.5:
            prompt = made[-1].prompt_ids
        made.append(
            ScoreRequest(f"s{i}", prompt, tuple(rng.integers(0, VOCAB, rng.choice([1, 2, 9])).tolist()))
        )
    return made


def test_greedy_equals_transformers(pair):
    folder, model = pair
    engine = loaded(folder, slots=8)
    assert engine.swap_report.reference_error < 1e-4
    wanted = requests(24, sampled=False)
    done = run(engine, wanted)
    for request in wanted:
        out = model.generate(
            torch.tensor([request.prompt_ids]),
            attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=request.sampling.max_tokens,
            eos_token_id=list(request.stop_ids) or None,
            pad_token_id=0,
        )[0, len(request.prompt_ids) :].tolist()
        stopped = bool(out) and out[-1] in request.stop_ids
        assert done[request.key].token_ids == tuple(out[:-1] if stopped else out)
        assert done[request.key].finish == ("stop" if stopped else "length")


def test_scores_equal_transformers(pair):
    folder, model = pair
    wanted = scorings(25)
    for request, scored in zip(wanted, by_key(loaded(folder), wanted), strict=True):
        ids = torch.tensor([request.prompt_ids + request.continuation_ids])
        with torch.no_grad():
            logprobs = model(ids, use_cache=False).logits[0].log_softmax(-1)
        start = len(request.prompt_ids)
        expected = [logprobs[start - 1 + i, token].item() for i, token in enumerate(request.continuation_ids)]
        assert scored == pytest.approx(expected, abs=1e-4)


def by_key(engine: LocalEngine, wanted: list[ScoreRequest]) -> list[tuple[float, ...]]:
    scored = {s.key: s.logprobs for s in engine.score(wanted)}
    return [scored[request.key] for request in wanted]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("invariant", [True, False], ids=["as-found", "rows-matter"])
def test_company_does_not_matter(qwen3, dtype, invariant, monkeypatch):
    """Alone, together, shuffled, in other numbers of slots, after an interruption: the same bits."""
    if not invariant:  # a machine whose products change a row with the number of rows
        monkeypatch.setattr(Decoder, "rows_agree", lambda self, sizes: False)
    engine = loaded(qwen3, dtype=dtype, slots=16)
    wanted = requests(50, seed=1)
    together = run(engine, wanted)
    assert len({c.token_ids for c in together.values()}) > 30
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(wanted))
        assert run(engine, [wanted[i] for i in order]) == together
    interrupted = engine.generate(wanted[::-1])
    for _ in range(9):
        next(interrupted)
    for request in wanted[:25]:
        assert run(engine, [request])[request.key] == together[request.key]
    if engine.swap_report.row_invariant:  # fixed shapes promise nothing across other fixed shapes
        for slots in (8, 40):
            assert run(loaded(qwen3, dtype=dtype, slots=slots), wanted) == together

    to_score = scorings(60, seed=2)
    scores = by_key(engine, to_score)
    order = np.random.default_rng(3).permutation(len(to_score))
    shuffled = by_key(engine, [to_score[i] for i in order])
    assert [shuffled[np.flatnonzero(order == i)[0]] for i in range(len(to_score))] == scores
    assert [by_key(engine, [request])[0] for request in to_score[:30]] == scores[:30]


def test_company_does_not_matter_over_long_prompts(qwen3):
    engine = loaded(qwen3, slots=8)
    wanted = requests(20, seed=4, longest=1500)
    together = run(engine, wanted)
    assert run(engine, wanted[::-1]) == together
    for request in wanted[:8]:
        assert run(engine, [request])[request.key] == together[request.key]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), subset=st.sets(st.integers(0, 39), min_size=1))
def test_any_company(shared_engine, seed, subset):
    engine, wanted, together = shared_engine
    chosen = [wanted[i] for i in np.random.default_rng(seed).permutation(sorted(subset))]
    assert run(engine, chosen) == {request.key: together[request.key] for request in chosen}


@pytest.fixture(scope="module")
def shared_engine(qwen3):
    engine = loaded(qwen3, slots=16)
    wanted = requests(40, seed=7)
    return engine, wanted, run(engine, wanted)


def test_completions_come_as_they_finish(qwen3):
    engine = loaded(qwen3, slots=8)
    wanted = [Request(f"{n}", (1, 2), Sampling(max_tokens=n), 0, ()) for n in (40, 3, 20, 0)]
    assert [c.key for c in engine.generate(wanted)] == ["0", "3", "20", "40"]


def test_uniform_numbers_are_uniform_and_unrelated():
    seeds = np.repeat(np.arange(400, dtype=np.uint64), 250)
    steps = np.tile(np.arange(250), 400)
    u = uniform(seeds, steps).reshape(400, 250)
    assert np.bincount((u.ravel() * 20).astype(int), minlength=20) == pytest.approx(5000, abs=5 * 70)
    for a, b in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


def naive(logits, temperature, top_p, top_k):
    """Probabilities after temperature, top-k and top-p, one token at a time."""
    p = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-p)
    if top_k:
        p[order[top_k:]] = 0
    p /= p.sum()
    mass = 0.0
    for token in order:
        if mass >= top_p:
            p[token] = 0
        mass += p[token]
    return p / p.sum()


@pytest.mark.parametrize("vocab", [30, 3000])
@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.6, 1.0, 0), (1.0, 0.8, 0), (1.0, 1.0, 7), (1.4, 0.7, 12), (20.0, 0.9, 0)],
)
def test_draws_follow_the_filtered_distribution(vocab, temperature, top_p, top_k):
    """At temperature 20 the nucleus of 3000 tokens is wider than the shortlist that is tried first."""
    logits = np.random.default_rng(0).normal(0, 2, vocab)
    expected = naive(logits.astype(np.float32).astype(float), temperature, top_p, top_k)
    n = 20_000 if vocab < 100 else 4000
    rows = [torch.tensor(logits, dtype=torch.float32).expand(500, -1)] * (n // 500)
    counts = np.zeros(vocab)
    for i, block in enumerate(rows):
        tokens, usable = draw(
            block,
            np.full(500, temperature),
            np.full(500, top_p),
            np.full(500, top_k),
            np.arange(500 * i, 500 * (i + 1), dtype=np.uint64),
            np.full(500, 3),
        )
        assert usable.all()
        counts += np.bincount(tokens, minlength=vocab)
    assert counts[expected == 0].sum() == 0
    # Pearson's statistic over cells of at least 20 expected draws, normal at this many cells
    order = np.argsort(-expected)
    cells = np.minimum(np.cumsum(expected[order]) * n // 20, n)
    merged, seen = (np.bincount(cells.astype(int), w[order]) for w in (expected * n, counts))
    merged, seen = merged[merged > 5], seen[merged > 5]
    statistic = ((seen - merged) ** 2 / merged).sum()
    assert statistic < len(merged) + 5 * np.sqrt(2 * len(merged)) + 10


def test_swap_gives_the_results_of_a_fresh_engine(tmp_path):
    folders = [tmp_path / str(i) for i in range(3)]
    for seed, folder in enumerate(folders):
        save(folder, "qwen3", seed)
    engine, wanted = LocalEngine(device="cpu", slots=8), requests(20, seed=5)
    seen = set()
    for folder in (*folders, folders[0]):
        engine.load(folder)
        assert run(engine, wanted) == run(loaded(folder, slots=8), wanted)
        seen.add(engine.swap_report.weights_hash)
    assert seen == {weights_hash(folder) for folder in folders} and len(seen) == 3
    assert engine.swap_report.changed is True
    assert engine.swap_report.reference_error is None
    engine.load(folders[0])
    assert engine.swap_report.changed is False
    save(tmp_path / "other", "llama")
    engine.load(tmp_path / "other")
    assert engine.swap_report.reference_error < 1e-4


def test_swap_is_cheap(qwen3):
    engine = loaded(qwen3)
    engine.load(qwen3)
    assert engine.swap_report.seconds < 0.5  # milliseconds, were the machine idle


@pytest.mark.parametrize("stale", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_stale_tensor_is_caught(tmp_path, monkeypatch, stale):
    for seed in (0, 1):
        save(tmp_path / str(seed), "qwen3", seed)
    engine = loaded(tmp_path / "0")
    real = swap.put
    monkeypatch.setattr(
        swap, "put", lambda files, places: real(files, {k: v for k, v in places.items() if k != stale})
    )
    with pytest.raises(DipscopeError) as caught:
        engine.load(tmp_path / "1")
    assert caught.value.fault and stale in str(caught.value) and str(tmp_path / "1") in str(caught.value)
    with pytest.raises(DipscopeError, match="no checkpoint is loaded"):
        engine.generate(requests(1))


def test_wrong_forward_is_caught(qwen3, monkeypatch):
    """Right tensors in the wrong computation: the transformers reference sees it."""
    monkeypatch.setattr(Decoder, "_norm", lambda self, x, weight: x * weight)
    with pytest.raises(DipscopeError, match="differ from transformers") as caught:
        loaded(qwen3)
    assert caught.value.fault


def test_same_canaries_of_other_weights_are_compared_again(tmp_path):
    """A change no canary feels is not an error, but only once transformers agrees."""
    save(tmp_path / "a", "qwen3")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    used = {t for r in swap.canaries(VOCAB) for t in r.prompt_ids + r.continuation_ids}
    unused = next(t for t in range(VOCAB) if t not in used)
    tensors["model.embed_tokens.weight"][unused] += 1
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    engine = loaded(tmp_path / "a")
    first = engine.swap_report.weights_hash
    engine.load(tmp_path / "b")
    report = engine.swap_report
    assert (report.changed, report.weights_hash != first) == (False, True)
    assert report.reference_error < 1e-4


def test_sharded_checkpoint_is_the_same_model(tmp_path):
    model = save(tmp_path / "whole", "qwen3")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert weights_hash(tmp_path / "whole") == weights_hash(tmp_path / "shards")
    wanted = requests(5)
    assert run(loaded(tmp_path / "whole"), wanted) == run(loaded(tmp_path / "shards"), wanted)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def edit(change):
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def configure(**changes):
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


NORM = "model.layers.1.self_attn.k_norm.weight"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (truncate, "model.safetensors"),
        (edit(lambda tensors: tensors.pop(NORM)), NORM),
        (edit(lambda tensors: tensors.update({NORM: torch.ones(5)})), NORM),
        (edit(lambda tensors: tensors.update({"adapter.weight": torch.ones(5)})), "adapter.weight"),
        (configure(model_type="mamba"), "mamba"),
        (configure(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "yarn"),
        (configure(use_sliding_window=True), "sliding-window"),
    ],
)
def test_damage_is_named(tmp_path, damage, named):
    save(tmp_path / "good", "qwen3")
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    damage(tmp_path / "bad")
    engine = loaded(tmp_path / "good")
    with pytest.raises(DipscopeError) as caught:
        engine.load(tmp_path / "bad")
    assert named in str(caught.value)
    assert str(tmp_path / "bad") in str(caught.value)
    engine.load(tmp_path / "good")  # and the engine lives on
    assert run(engine, requests(3))


def test_missing_shard_is_named(tmp_path):
    save(tmp_path, "qwen3").save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    shard = sorted((tmp_path / "shards").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(DipscopeError, match=shard.name):
        loaded(tmp_path / "shards")


def test_broken_model_ends_as_error_and_harms_no_one(tmp_path):
    """NaN in one token's embedding: requests that hold it end as errors, the others do not notice."""
    save(tmp_path / "good", "qwen3")
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    edit(lambda tensors: tensors["model.embed_tokens.weight"][90].fill_(torch.nan))(tmp_path / "bad")
    wanted = requests(60, seed=6)
    engine = loaded(tmp_path / "bad", slots=8)
    broken, sound = run(engine, wanted), run(loaded(tmp_path / "good", slots=8), wanted)
    for request in wanted:
        if 90 in request.prompt_ids:
            assert broken[request.key] == Completion(request.key, (), "error")
        elif 90 not in sound[request.key].token_ids:
            assert broken[request.key] == sound[request.key]
    assert 5 < sum(c.finish == "error" for c in broken.values()) < 55


@pytest.mark.parametrize(("prompt", "why"), [((), "no tokens"), ((1, VOCAB), "outside the vocabulary")])
def test_bad_prompts_are_refused_at_once(qwen3, prompt, why):
    with pytest.raises(DipscopeError, match=why):
        loaded(qwen3).generate([Request("x", prompt, Sampling(), 0, ())])


def test_loading_in_the_middle_of_generating_is_refused(qwen3):
    engine = loaded(qwen3, slots=8)
    running = engine.generate(requests(20))
    next(running)
    engine.load(qwen3)
    with pytest.raises(DipscopeError, match="in the middle"):
        list(running)
