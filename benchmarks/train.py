"""Training speed: the loop against a plain padded transformers loop, side by side in one process.

Both train the same random Qwen3 on the same rows in the same order, in fp32 on one thread, and alternate
step by step. Speed is useful (unpadded) tokens per second of CPU time; the last line is JSON with medians.
"""

import argparse
import copy
import json
import random
import statistics
import time

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from dipscope.data.tokenize import Example
from dipscope.study import Recipe
from dipscope.train import attention
from dipscope.train.optimizer import make_optimizer as adamw
from dipscope.train.packing import input_length
from dipscope.train.schedule import rows_of_step
from dipscope.train.step import optimizer_step

SIZES = {
    "XS": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 2},
    "S": {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 256, "num_attention_heads": 4},
    "M": {"hidden_size": 192, "num_hidden_layers": 4, "intermediate_size": 640, "num_attention_heads": 6},
}
VOCABULARY = 350


def padded_step(model, optimizer, rows, clip):
    """What a plain loop does: pad to the longest row, mask, let the model make the loss, step."""
    longest = max(len(r.prompt_ids) + len(r.target_ids) for r in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.prompt_ids + row.target_ids)
        ids[i, : len(tokens)], mask[i, : len(tokens)] = tokens, 1
        labels[i, len(row.prompt_ids) : len(tokens)] = tokens[len(row.prompt_ids) :]
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def measure(size, steps, seed=0):
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY, head_dim=32, num_key_value_heads=SIZES[size]["num_attention_heads"] // 2,
        tie_word_embeddings=True, max_position_embeddings=1024, **SIZES[size],
    )  # fmt: skip
    plain = Qwen3ForCausalLM(config).train()
    ours = copy.deepcopy(plain)
    attention.attach(ours)
    draw = random.Random(seed)
    ids = range(VOCABULARY)
    rows = [
        Example(tuple(draw.choices(ids, k=15)), tuple(draw.choices(ids, k=draw.randint(10, 280))), False)
        for _ in range(256)
    ]
    recipe = Recipe(lr=1e-3, epochs=1000, batch_size=32, precision="fp32", warmup=0, schedule="constant")
    ours_adam, plain_adam = adamw(ours, recipe), adamw(plain, recipe)
    speeds = {"dipscope": [], "padded": []}
    for step in range(1, steps + 1):
        batch = [rows[i] for i in rows_of_step(seed, step, recipe.batch_size, len(rows))]
        useful = sum(map(input_length, batch))
        started = time.process_time()
        report = optimizer_step(ours, ours_adam, rows, recipe, seed, step, steps)
        between = time.process_time()
        loss = padded_step(plain, plain_adam, batch, recipe.clip)
        ended = time.process_time()
        assert abs(report.loss - loss) < 1e-3 * loss, "the two loops no longer train the same model"
        speeds["dipscope"].append(useful / (between - started))
        speeds["padded"].append(useful / (ended - between))
    medians = {name: statistics.median(values[2:]) for name, values in speeds.items()}
    ratios = [a / b for a, b in zip(speeds["dipscope"][2:], speeds["padded"][2:], strict=True)]
    return {
        "parameters": sum(p.numel() for p in ours.parameters()),
        **{f"{name}_tokens_per_s": round(value) for name, value in medians.items()},
        "ratio": round(statistics.median(ratios), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {size: measure(size, options.steps) for size in options.sizes}
    for size, result in results.items():
        print(f"{size:>3}: {result}")
    print(json.dumps({"benchmark": "train", "threads": 1, "precision": "fp32", "sizes": results}))
