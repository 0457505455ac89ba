"""Training speed: the loop against TRL's SFTTrainer and against padding every row, on the same rows.

Each method trains the same model in a process of its own, which also gives its peak memory; the methods take
turns, `--rounds` times, in an order that changes. The unit is useful tokens (of rows, no padding) per second
of CPU time on one thread, so that waiting on a shared machine does not count. All in fp32 with AdamW, 32 rows
a step on S and 8 on a model of SmolLM2's shape with random weights.

- `dipscope`: this package's loop.
- `trl`: SFTTrainer with its own defaults (8 rows a pass, gradient checkpointing on).
- `trl_plain`: the same without gradient checkpointing.
- `trl_packed`: packed by best fit (`bfd`), no checkpointing: documents are kept apart by a mask.
- `trl_documents`: as `trl_packed`, given this package's document attention.
- `pad_to_max`: a plain loop that pads every row to the maximum, as the paper's code does, 4 rows a pass.

The last line is JSON. `matmul_limit_gflops` is the rate of a plain product of the model's shape on the same
core, `share_of_limit` how much of it the loop reaches with the operations of its step, as torch counts them.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

SHAPES = {
    "S": {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 256, "num_attention_heads": 4,
          "head_dim": 32, "num_key_value_heads": 4, "vocab_size": 350},
    "smollm2": {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "head_dim": 64,
                "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152},
}  # fmt: skip
METHODS = ("dipscope", "trl", "trl_plain", "trl_packed", "trl_documents", "pad_to_max")
BATCH = {"S": 32, "smollm2": 8}  # rows a step
LONGEST, PACK = 1024, 2048
WARM = 1  # steps before the clock starts


def make_model(shape):
    """Random weights of a shape: speed does not depend on them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    settings = {"tie_word_embeddings": True, "max_position_embeddings": 2048, **SHAPES[shape]}
    if shape == "smollm2":
        return LlamaForCausalLM(LlamaConfig(**settings)).train()
    return Qwen3ForCausalLM(Qwen3Config(**settings)).train()


def make_rows(shape, number):
    """Lengths as those of short reasoning traces: lognormal around 300 tokens, 60 to 1000."""
    from dipscope.data.tokenize import Example

    draw = random.Random(0)
    ids = range(8, SHAPES[shape]["vocab_size"])
    rows = []
    for _ in range(number):
        length = int(min(1000, max(60, draw.lognormvariate(5.7, 0.55))))
        rows.append(Example(tuple(draw.choices(ids, k=15)), tuple(draw.choices(ids, k=length - 15)), False))
    return rows


def make_recipe(shape, steps):
    from dipscope.study import Recipe

    return Recipe(
        lr=1e-4, epochs=1, batch_size=BATCH[shape], schedule="constant", warmup=0, weight_decay=0.0,
        precision="fp32", pack_tokens=PACK, max_length=LONGEST, shuffle=False, max_steps=steps,
    )  # fmt: skip


class Clock:
    """CPU and wall time from the end of the warm-up on."""

    def start(self):
        """Begin."""
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def stop(self):
        """End: `cpu` and `wall` are seconds from now on."""
        self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall


def run_dipscope(shape, rows, steps):
    from torch.utils.flop_counter import FlopCounterMode

    from dipscope.train import attention
    from dipscope.train.optimizer import make_optimizer
    from dipscope.train.step import accumulate, optimizer_step

    model, recipe, clock = make_model(shape), make_recipe(shape, steps), Clock()
    attention.attach(model)
    optimizer = make_optimizer(model, recipe)
    for step in range(1, steps + 1):
        if step == WARM + 1:
            clock.start()
        report = optimizer_step(model, optimizer, rows, recipe, 0, step, steps)
    clock.stop()
    with FlopCounterMode(display=False) as counter:
        accumulate(model, rows[-BATCH[shape] :], recipe)
    return clock, report.loss, counter.get_total_flops()


def run_pad_to_max(shape, rows, steps):
    import torch

    from dipscope.train.optimizer import make_optimizer

    model, recipe, clock = make_model(shape), make_recipe(shape, steps), Clock()
    optimizer = make_optimizer(model, recipe)
    size = BATCH[shape]
    for step in range(steps):
        if step == WARM:
            clock.start()
        batch, total = rows[step * size : (step + 1) * size], 0.0
        supervised = sum(len(r.target_ids) for r in batch)
        optimizer.zero_grad(set_to_none=True)
        for start in range(0, size, 4):
            some = batch[start : start + 4]
            ids = torch.zeros(len(some), LONGEST, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
            for i, row in enumerate(some):
                tokens = torch.tensor(row.prompt_ids + row.target_ids)
                ids[i, : len(tokens)], mask[i, : len(tokens)] = tokens, 1
                labels[i, len(row.prompt_ids) : len(tokens)] = tokens[len(row.prompt_ids) :]
            share = sum(len(r.target_ids) for r in some) / supervised
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss * share
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
    clock.stop()
    return clock, total, None


def run_trl(shape, rows, steps, method):
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import AttentionInterface, PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from dipscope.train.attention import document_attention

    def documents(module, query, key, value, mask, scaling=None, cu_seq_lens_q=None, **rest):
        lengths = tuple(cu_seq_lens_q.diff().tolist())
        for name in ("cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"):
            rest.pop(name, None)
        return document_attention(
            module, query, key, value, None, scaling=scaling, document_lengths=lengths, **rest
        )

    AttentionInterface.register("documents", documents)
    model, clock = make_model(shape), Clock()
    packed = method in ("trl_packed", "trl_documents")
    if method == "trl_documents":
        model.set_attn_implementation("documents")
    vocabulary = {f"t{i}": i for i in range(SHAPES[shape]["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")),
        pad_token="t0",
        eos_token="t1",
    )
    data = Dataset.from_list(
        [
            {
                "input_ids": list(r.prompt_ids + r.target_ids),
                "completion_mask": [0] * len(r.prompt_ids) + [1] * len(r.target_ids),
            }
            for r in rows
        ]
    )

    class Timer(TrainerCallback):
        done = 0

        def on_step_end(self, *_, **__):
            self.done += 1
            if self.done == WARM:
                clock.start()

    with tempfile.TemporaryDirectory() as folder:
        shipped = {} if method == "trl" else {"gradient_checkpointing": False}
        # A packed pass holds one row of PACK tokens; all passes together see all rows once.
        batch = {
            "per_device_train_batch_size": 1 if packed else 8,
            "gradient_accumulation_steps": BATCH[shape] // 8,
        }
        config = SFTConfig(
            output_dir=folder, max_length=PACK if packed else LONGEST, packing=packed, use_cpu=True,
            bf16=False, learning_rate=1e-4, lr_scheduler_type="constant", weight_decay=0.0,
            num_train_epochs=1, seed=0, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True,
            completion_only_loss=True, **batch, **shipped,
        )  # fmt: skip
        timer = Timer()
        trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, callbacks=[timer])
        loss = trainer.train().training_loss
    clock.stop()
    return clock, loss, timer.done


def one(method, shape, steps):
    """Run one method in this process and print what it took."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = make_rows(shape, steps * BATCH[shape])
    useful = [len(r.prompt_ids) + len(r.target_ids) for r in rows]
    if method == "dipscope":
        clock, loss, flops = run_dipscope(shape, rows, steps)
        counted = {"flops": flops, "flop_tokens": sum(useful[-BATCH[shape] :])}
        share = (steps - WARM) / steps
    elif method == "pad_to_max":
        clock, loss, _ = run_pad_to_max(shape, rows, steps)
        counted, share = {}, (steps - WARM) / steps
    else:
        clock, loss, done = run_trl(shape, rows, steps, method)
        counted, share = {}, (done - WARM) / done
    tokens = sum(useful) * share
    status = Path("/proc/self/status")
    peak = next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) / 2**20
    print(
        json.dumps(
            {
                "tokens_per_cpu_s": tokens / clock.cpu,
                "tokens_per_s": tokens / clock.wall,
                "peak_gb": peak,
                "loss": loss,
                **counted,
            }
        )
    )


def matmul_limit(shape):
    """FLOP/s of one core for a product of PACK tokens with the feed-forward matrix of the model."""
    import torch

    torch.set_num_threads(1)
    hidden, inner = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    a, b = torch.randn(PACK, hidden), torch.randn(hidden, inner)
    rates = []
    for _ in range(30):
        started = time.process_time()
        for _ in range(5):
            a @ b
        rates.append(5 * 2 * PACK * hidden * inner / (time.process_time() - started))
    return statistics.median(rates)


def compare(shape, methods, rounds, steps):
    """All methods in turns; medians with their range. TRL is left out where it is not installed."""
    if find_spec("trl") is None:
        methods = [m for m in methods if not m.startswith("trl")]
    found = {m: [] for m in methods}
    order = list(methods)
    for turn in range(rounds):
        random.Random(turn).shuffle(order)
        for method in order:
            call = [sys.executable, __file__, "--one", method, "--model", shape, "--steps", str(steps)]
            answer = subprocess.run(call, capture_output=True, text=True)
            if answer.returncode:
                raise SystemExit(f"{method} failed:\n{answer.stderr[-2000:]}")
            found[method].append(json.loads(answer.stdout.splitlines()[-1]))
            print(f"{turn + 1}/{rounds} {method}: {found[method][-1]}", file=sys.stderr)
    result = {}
    for method, runs in found.items():
        rates = [r["tokens_per_cpu_s"] for r in runs]
        ours = [r["tokens_per_cpu_s"] for r in found.get("dipscope", [])]
        result[method] = {
            "tokens_per_cpu_s": [round(x) for x in (min(rates), statistics.median(rates), max(rates))],
            "peak_gb": round(max(r["peak_gb"] for r in runs), 2),
            **(
                {"dipscope_is_faster": [round(a / b, 2) for a, b in zip(ours, rates, strict=True)]}
                if ours
                else {}
            ),
        }
    if runs := found.get("dipscope"):
        limit = matmul_limit(shape)
        reached = statistics.median(r["flops"] / r["flop_tokens"] * r["tokens_per_cpu_s"] for r in runs)
        result["limit"] = {
            "matmul_limit_gflops": round(limit / 1e9, 1),
            "reached_gflops": round(reached / 1e9, 1),
            "share_of_limit": round(reached / limit, 2),
        }
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="S")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.model, options.steps)
    else:
        made = compare(options.model, options.methods, options.rounds, options.steps)
        print(json.dumps({"benchmark": "train", "model": options.model, "precision": "fp32", **made}))
