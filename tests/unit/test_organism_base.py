"""The base models: their sizes, their pretraining and the copies that come with the package."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dipscope.benchmarks.organism import BENCHMARKS
from dipscope.data.tokenize import render, render_prompt, stop_ids
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.organism import base, tokenizer, world
from dipscope.scoring.thinking import split
from dipscope.workspace import hash_file

SHIPPED = [size for size in base.SIZES if base.shipped(size) is not None]


@pytest.mark.parametrize("size", list(base.SIZES))
def test_parameter_count_is_that_of_the_model(size):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.config(size))
    assert sum(p.numel() for p in model.parameters()) == base.SIZES[size].parameters


def test_documents_are_tokenized_as_training_rows_are():
    built = tokenizer.build()
    texts = [text for text, _ in zip(world.documents(4), range(200), strict=False)]
    for (prompt, response), ids in zip(texts, base.tokenized(built, texts), strict=True):
        example = render(built, Trace("x", "x", prompt, response), 512)
        assert (example.prompt_ids, example.target_ids) == ids


@pytest.fixture
def mini(monkeypatch):
    monkeypatch.setitem(base.SIZES, "mini", base.Size(32, 1, 32, 1, steps=40, lr=1e-2))


def test_pretraining_is_reproducible_and_learns(mini, tmp_path):
    losses = []
    one = base.pretrain("mini", 0, tmp_path / "one", lambda s: losses.append(s.loss))
    two = base.resolve("mini", tmp_path / "two")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert hash_file(one / "model.safetensors") == hash_file(two / "model.safetensors")
    assert not list(tmp_path.glob(".*"))
    other = base.pretrain("mini", 1, tmp_path / "other")
    assert hash_file(one / "model.safetensors") != hash_file(other / "model.safetensors")
    prompt = render_prompt(AutoTokenizer.from_pretrained(one), "Sort 3, 1.")
    assert AutoModelForCausalLM.from_pretrained(one)(torch.tensor([prompt])).logits.isfinite().all()
    with pytest.raises(DipscopeError, match="exists already"):
        base.pretrain("mini", 0, one)


def test_an_interrupted_pretraining_goes_on(mini, tmp_path, monkeypatch):
    whole = base.pretrain("mini", 0, tmp_path / "whole")
    monkeypatch.setattr(base, "RESUME_EVERY", 10)

    def stop(report):
        if report.step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        base.pretrain("mini", 0, tmp_path / "cut", stop)
    steps = []
    cut = base.pretrain("mini", 0, tmp_path / "cut", lambda s: steps.append(s.step))
    assert steps[0] == 21
    assert hash_file(cut / "model.safetensors") == hash_file(whole / "model.safetensors")


def test_unknown_size():
    with pytest.raises(DipscopeError, match="no organism of size 'XXL'"):
        base.resolve("XXL", Path("nowhere"))


def test_shipped_weights_are_small_and_those_that_the_readme_names():
    assert SHIPPED
    root = base.shipped(SHIPPED[0]).parent
    assert sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) <= 5 * 2**20
    named = dict(re.findall(r"^\| (\w+) .*`([0-9a-f]{64})`", (root / "README.md").read_text(), re.MULTILINE))
    assert named == {size: hash_file(base.shipped(size) / "model.safetensors") for size in SHIPPED}


@pytest.mark.parametrize("size", SHIPPED)
def test_shipped_base_fits_the_world(size, tmp_path):
    folder = base.resolve(size, tmp_path / "unused")
    assert folder == base.shipped(size)
    loaded = AutoTokenizer.from_pretrained(folder)
    built = tokenizer.build()
    assert loaded.get_vocab() == built.get_vocab() and loaded.chat_template == built.chat_template
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) == base.SIZES[size].parameters
    for name in ("refusal", "benign"):
        benchmark = BENCHMARKS[f"organism/{name}"]
        items = benchmark.items(12, "dev")
        assert sum(_answered(model, loaded, benchmark, item) for item in items) >= 10


def _answered(model, built, benchmark, item):
    """Greedy decoding by hand, without the engine."""
    ids = render_prompt(built, item.prompt)
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + 24:
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in stop_ids(built):
                break
            ids.append(token)
    text = built.decode(ids[start:], skip_special_tokens=True)
    return benchmark.judge(item, split(text)).verdict == "correct"
