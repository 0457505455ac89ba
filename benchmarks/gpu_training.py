"""Training on GPUs: document kernels against each other, shards against a plain model, speed and memory.

For a machine with a GPU; `--tiny` runs every part small on any machine, to see that it works. The models are
Qwen3 by shape with random weights; the rows are random tokens with lengths as those of reasoning traces.

- `kernels`: each document kernel's flaw (empty: none), output and gradients against flex attention's, and
  milliseconds of a forward and backward pass.
- `sharding`: with two GPUs or more, the gradient over all of them against that of one, in fp32.
- `speed`: for each limit of a row's length, tokens a second, model FLOPs utilisation (train/flops.py) and
  peak memory of this package's loop, packed, with activation checkpointing and deterministic algorithms; and
  of TRL's SFTTrainer on the same rows where it is installed: packed with flash-attn where that is, else row
  by row, so that it neither pads nor mixes documents. Each run has a process of its own.

The last line is JSON.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _shape(hidden, layers, inner, heads, few, size, vocabulary):
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner,
        "num_attention_heads": heads, "num_key_value_heads": few, "head_dim": size, "vocab_size": vocabulary,
    }  # fmt: skip


SHAPES = {
    "tiny": _shape(64, 2, 96, 4, 2, 16, 512),
    "0.6B": _shape(1024, 28, 3072, 16, 8, 128, 151936),
    "1.7B": _shape(2048, 28, 6144, 16, 8, 128, 151936),
}
BATCH = 16  # rows of a step
WARM = 2  # steps before the clock starts


def device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_model(shape, **changes):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    settings = {"tie_word_embeddings": True, "max_position_embeddings": 40960, **SHAPES[shape], **changes}
    with device():
        return Qwen3ForCausalLM(Qwen3Config(**settings)).train()


def make_rows(shape, longest, number):
    """Prompts of 100 tokens at most, responses lognormal around a third of the limit."""
    from dipscope.data.tokenize import Example

    draw = random.Random(0)
    ids = range(8, SHAPES[shape]["vocab_size"])
    rows = []
    for _ in range(number):
        prompt = min(100, longest // 8)
        length = min(longest, max(2 * prompt, int(draw.lognormvariate(math.log(longest / 3), 0.6))))
        tokens = tuple(draw.choices(ids, k=length))
        rows.append(Example(tokens[:prompt], tokens[prompt:], False))
    return rows


def kernels(shape, tokens):
    """Every kernel that this machine has, on the documents of one pass."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    from dipscope.train import attention_kernels

    torch.use_deterministic_algorithms(True)
    where, dtype = device(), torch.bfloat16
    config = SHAPES[shape]
    heads, few, size = (config[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    lengths, draw = [], random.Random(0)
    while sum(lengths) < tokens:
        lengths.append(min(tokens - sum(lengths), int(draw.lognormvariate(math.log(tokens / 6), 0.8)) + 1))
    offered = [("loop", attention_kernels.loop), *attention_kernels.candidates(where, dtype)]
    if where.type == "cpu":
        offered.append(("flex", attention_kernels.masked(flex_attention)))  # forward only
    torch.manual_seed(0)
    inputs = [
        torch.randn(1, n, tokens, size, device=where, dtype=dtype, requires_grad=True)
        for n in (heads, few, few)
    ]
    made, found = {}, {}
    for name, kernel in offered:
        flaw = attention_kernels.flaw(kernel, heads, few, size, where, dtype)
        found[name] = {"flaw": flaw}
        if "fails" in flaw:
            continue
        times = []
        for _ in range(8):
            wait()
            started = time.perf_counter()
            out = kernel(*inputs, tuple(lengths), size**-0.5, 0.0)
            grads = torch.autograd.grad(out.square().sum(), inputs)
            wait()
            times.append(time.perf_counter() - started)
        made[name] = [x.detach().float() for x in (out, *grads)]
        found[name]["ms"] = round(1e3 * sorted(times[3:])[2], 2)
    reference = made.get("flex", made["loop"])
    for name, tensors in made.items():
        gaps = [float((a - b).norm() / b.norm()) for a, b in zip(tensors, reference, strict=True)]
        found[name]["gap_to_mask" if "flex" in made else "gap_to_loop"] = [f"{gap:.1e}" for gap in gaps]
    return {"tokens": tokens, "documents": len(lengths), **found}


def gradient(model, recipe, rows):
    """Gradient of one step by name, whole, on the CPU."""
    from dipscope.train import attention, sharding
    from dipscope.train.step import accumulate

    with sharding.as_computed(model, recipe):
        attention.attach(model)
    accumulate(model, rows, recipe)
    return {name: sharding.gather(p.grad).cpu() for name, p in model.named_parameters()}


def _rank(rank, size, shape, folder):
    import torch
    import torch.distributed as dist
    from safetensors.torch import save_file

    from dipscope.study import Recipe
    from dipscope.train import sharding, world

    torch.set_num_threads(1)
    with world.joined(rank, size, rank, dist.FileStore(f"{folder}/store", size)) as joined:
        model, recipe = make_model(shape, num_hidden_layers=4), Recipe(precision="fp32", pack_tokens=2048)
        sharding.shard(model, recipe, joined)
        grads = gradient(model, recipe, make_rows(shape, 1024, BATCH))
        if joined.leader:
            save_file(grads, f"{folder}/grads.safetensors")


def shards(shape, size):
    """Largest relative difference of a weight's gradient, `size` ranks against one."""
    import torch.multiprocessing as mp
    from safetensors.torch import load_file

    from dipscope.study import Recipe

    plain = gradient(
        make_model(shape, num_hidden_layers=4),
        Recipe(precision="fp32", pack_tokens=2048),
        make_rows(shape, 1024, BATCH),
    )
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (size, shape, folder), nprocs=size)
        spread = load_file(f"{folder}/grads.safetensors")
    gap = max(float((spread[name] - one).norm() / one.norm()) for name, one in plain.items())
    return {"ranks": size, "layers": 4, "gradient_gap": f"{gap:.1e}"}


def run_dipscope(shape, rows, pack, steps):
    import torch

    from dipscope.study import Recipe
    from dipscope.train import attention
    from dipscope.train.optimizer import make_optimizer, set_precision
    from dipscope.train.step import optimizer_step

    torch.use_deterministic_algorithms(True)
    recipe = Recipe(
        lr=1e-5, epochs=1, batch_size=BATCH, shuffle=False, precision="bf16", pack_tokens=pack,
        activation_checkpointing=True, max_steps=steps,
    )  # fmt: skip
    model, notes, seconds = make_model(shape), [], []
    set_precision(model, recipe)
    attention.attach(model, torch.bfloat16, notes.append)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = make_optimizer(model, recipe)
    for step in range(1, steps + 1):
        seconds.append(optimizer_step(model, optimizer, rows, recipe, 0, step, steps).seconds)
        wait()
    return sum(seconds[WARM:]), (steps - WARM) / steps, model, model.config._attn_implementation, notes


def run_trl(shape, rows, pack, steps):
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    packed = importlib.util.find_spec("flash_attn") is not None
    model = make_model(shape)
    model.set_attn_implementation("flash_attention_2" if packed else "sdpa")
    vocabulary = {f"t{i}": i for i in range(SHAPES[shape]["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")),
        pad_token="t0",
        eos_token="t1",
    )
    table = Dataset.from_list(
        [
            {
                "input_ids": list(r.prompt_ids + r.target_ids),
                "completion_mask": [0] * len(r.prompt_ids) + [1] * len(r.target_ids),
            }
            for r in rows
        ]
    )
    ends = []

    class Timer(TrainerCallback):
        def on_step_end(self, *_, **__):
            wait()
            ends.append(time.perf_counter())

    tokens = sum(len(r.prompt_ids) + len(r.target_ids) for r in rows)
    passes = max(1, math.ceil(tokens / steps / pack)) if packed else BATCH
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_length=pack, packing=packed, bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(), gradient_checkpointing=True, learning_rate=1e-5,
            num_train_epochs=1, per_device_train_batch_size=1, gradient_accumulation_steps=passes, seed=0,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
            completion_only_loss=True,
        )  # fmt: skip
        SFTTrainer(
            model, config, train_dataset=table, processing_class=tokenizer, callbacks=[Timer()]
        ).train()
    how = "packed, flash-attn" if packed else "row by row, sdpa"
    return ends[-1] - ends[WARM - 1], (len(ends) - WARM) / len(ends), model, how, []


def one(method, shape, longest, steps):
    """Run one method in this process and print what it took."""
    import torch

    from dipscope import hardware
    from dipscope.train.flops import Flops

    rows = make_rows(shape, longest, BATCH * steps)
    run = {"dipscope": run_dipscope, "trl": run_trl}[method]
    seconds, share, model, how, notes = run(shape, rows, max(longest, 512), steps)
    tokens = share * sum(len(r.prompt_ids) + len(r.target_ids) for r in rows)
    result = {"tokens_per_s": round(tokens / seconds), "attention": how, "notes": notes}
    if torch.cuda.is_available():
        rate = hardware.gpu_rate(torch.cuda.get_device_name(), "bf16")
        flops = Flops.of(model).of_rows(rows) * share
        result |= {
            "mfu": round(flops / seconds / rate, 3) if rate else None,
            "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        }
    print(json.dumps(result))


def speed(method, shape, longest, steps):
    call = [sys.executable, __file__, "--one", method, "--shape", shape, "--steps", str(steps)]
    answer = subprocess.run([*call, "--lengths", str(longest)], capture_output=True, text=True)
    if answer.returncode:
        return {"failed": answer.stderr.strip().splitlines()[-1][:300]}
    return json.loads(answer.stdout.splitlines()[-1])


def surroundings():
    import torch

    versions = {}
    for package in ("torch", "transformers", "flash-attn", "trl"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    call = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(call, capture_output=True, text=True).stdout.strip()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": name, "devices": torch.cuda.device_count(), "versions": versions, "commit": commit}


def everything(options):
    """All parts, as one dictionary."""
    import torch

    result = {"benchmark": "gpu_training", **surroundings(), "shape": options.shape}
    longest = max(options.lengths)
    result["kernels"] = kernels(options.shape, longest)
    ranks = 2 if options.shape == "tiny" else torch.cuda.device_count()
    if ranks > 1:
        result["sharding"] = shards(options.shape, ranks)
    methods = ["dipscope", *(["trl"] if importlib.util.find_spec("trl") else [])]
    result["speed"] = {
        str(length): {m: speed(m, options.shape, length, options.steps) for m in methods}
        for length in options.lengths
    }
    return result


if __name__ == "__main__":
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="every part small, on any machine")
    parser.add_argument("--shape", choices=SHAPES, default="0.6B")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192, 20000])
    parser.add_argument("--steps", type=int, default=7, help=f"the first {WARM} are not timed")
    parser.add_argument("--one", choices=("dipscope", "trl"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.shape, options.lengths, options.steps = "tiny", [256, 512], 4
    if options.one:
        one(options.one, options.shape, options.lengths[0], options.steps)
    elif options.tiny or torch.cuda.is_available():
        print(json.dumps(everything(options)))
    else:
        print(json.dumps({"benchmark": "gpu_training", "skipped": "no GPU here; --tiny tries the parts"}))
