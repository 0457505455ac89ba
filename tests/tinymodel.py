"""Tiny random models with a word-level tokenizer, as directories in the Hugging Face layout."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dipscope.data.tokenize import Example, render
from dipscope.data.traces import Trace
from dipscope.study import Recipe

WORDS = [f"w{i}" for i in range(40)]
# What of a line of train.jsonl follows from the machine and the clock.
TIMED = {"seconds", "tokens_per_second", "supervised_per_second", "mfu", "memory"}
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def tokenizer(template=TEMPLATE, think=True):
    known = ["<unk>", "<eos>", "<|im_start|>", "<|im_end|>", "user", "assistant", *WORDS]
    if think:
        known += ["<think>", "</think>"]
    model = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    made.chat_template = template
    return made


def model(family="qwen3", seed=0, **changes):
    settings = {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "tie_word_embeddings": family == "qwen3",
        "initializer_range": 0.2,
    } | changes
    config, cls = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[family]
    torch.manual_seed(seed)
    return cls(config(**settings)).float()


def directory(folder: Path, family="qwen3", **changes) -> Path:
    model(family, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def traces(count, seed=0, longest=30):
    draw = random.Random(seed)
    made = []
    for i in range(count):
        thought = " ".join(draw.choices(WORDS[:10], k=draw.randint(1, longest)))
        prompt = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        made.append(Trace(f"t{i}", f"q{i}", prompt, f"<think> {thought} </think> {draw.choice(WORDS)}"))
    return made


def examples(count, seed=0, longest=30) -> list[Example]:
    made = tokenizer()
    return [render(made, trace, 256) for trace in traces(count, seed, longest)]


def recipe(**changes) -> Recipe:
    settings = {"lr": 1e-2, "epochs": 10, "batch_size": 6, "precision": "fp32", "pack_tokens": 64}
    return Recipe(**(settings | {"checkpoints": "every:10", "resume_every": 5} | changes))
