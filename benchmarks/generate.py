"""Tokens per second of the local engine beside `transformers.generate`, same process, same requests.

Prints one JSON line last. CPU seconds of this process are the clock, so that a busy machine disturbs less;
the two take turns. Models are randomly initialised; lengths are lognormal (median 40, 8 to 160), in
random order, since nobody knows them beforehand, and reached exactly, since nothing stops early.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from dipscope.engine.base import Request, Sampling
from dipscope.engine.local import LocalEngine

SHAPES = {
    "tiny": {
        "model_type": "qwen3", "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 384, "vocab_size": 320,
    },
    "smollm2": {
        "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "rope_theta": 100000.0,
    },
}  # fmt: skip


def workload(count: int, vocab: int, temperature: float) -> list[Request]:
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(40), 0.7, count)), 8, 160).astype(int)
    prompts = [tuple(rng.integers(3, vocab, rng.integers(40, 121)).tolist()) for _ in range(count)]
    return [
        Request(str(i), prompts[i], Sampling(temperature=temperature, max_tokens=int(lengths[i])), i, ())
        for i in range(count)
    ]


def run_engine(engine: LocalEngine, requests: list[Request]) -> int:
    return sum(len(completion.token_ids) for completion in engine.generate(requests))


def run_transformers(model, requests: list[Request], batch: int) -> int:
    """Left-padded batches; each runs to its longest request, and only asked-for tokens count."""
    made = 0
    for start in range(0, len(requests), batch):
        part = requests[start : start + batch]
        width = max(len(r.prompt_ids) for r in part)
        ids = torch.tensor([(0,) * (width - len(r.prompt_ids)) + r.prompt_ids for r in part])
        mask = torch.tensor([[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in part])
        t = part[0].sampling.temperature
        drawn = {"do_sample": True, "temperature": t, "top_k": 0} if t > 0 else {"do_sample": False}
        out = model.generate(
            ids, attention_mask=mask, **drawn, pad_token_id=0, eos_token_id=None,
            max_new_tokens=max(r.sampling.max_tokens for r in part),
        )  # fmt: skip
        assert out.shape[1] > width
        made += sum(r.sampling.max_tokens for r in part)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    result: dict[str, object] = {"benchmark": "generate", "threads": args.threads, "torch": torch.__version__}
    for name in args.shapes:
        with tempfile.TemporaryDirectory() as folder:
            shape = dict(SHAPES[name])
            config = transformers.AutoConfig.for_model(
                shape.pop("model_type"), tie_word_embeddings=True, **shape
            )
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
            model.save_pretrained(folder)
            engine = LocalEngine(device="cpu")
            engine.load(Path(folder))
            started = time.perf_counter()
            engine.load(Path(folder))
            swap_ms = (time.perf_counter() - started) * 1e3
        slots = 64 if name == "tiny" else 32
        requests = workload(
            3 * slots if name == "tiny" else slots * 5 // 4, config.vocab_size, args.temperature
        )
        speeds: dict[str, list[float]] = {"local": [], "transformers": []}
        run_engine(engine, requests[:8])
        for _ in range(args.repeats):
            for which in speeds:
                started = time.process_time()
                if which == "local":
                    made = run_engine(engine, requests)
                else:
                    made = run_transformers(model, requests, slots)
                speeds[which].append(made / (time.process_time() - started))
        ratios = [a / b for a, b in zip(speeds["local"], speeds["transformers"], strict=True)]
        result[name] = {
            "tokens": made,
            "local_tokens_per_cpu_s": [round(v) for v in speeds["local"]],
            "transformers_tokens_per_cpu_s": [round(v) for v in speeds["transformers"]],
            "ratio_median": round(statistics.median(ratios), 2),
            "swap_ms": round(swap_ms, 1),
        }
    result["cores"] = os.cpu_count()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
