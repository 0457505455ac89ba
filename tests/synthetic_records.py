"""A small fixed set of records with known truths, for tests of the analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from zlib import crc32

import numpy as np
import polars as pl

from dipscope.records import SCHEMA

STEPS = (0, 10, 20, 40, 80)
Profile = Mapping[str, Sequence[float]]


def study(
    arms: Sequence[tuple[str, str, str, float, Profile]],
    *,
    benchmarks: Mapping[str, str],
    seeds: Sequence[int] = (0, 1),
    items: int = 120,
    samples: int = 1,
    cut: Sequence[float] = (0, 0, 0, 0, 0),
    lengths: Sequence[float] = (50, 80, 150, 90, 60),
    likelihood: Profile | None = None,
    data: Mapping[str, str] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and checkpoints.

    `arms` are (model, dataset, variant, replay, profile); a profile gives the chance to be right at each
    of `STEPS` by benchmark. `cut` is the chance that a response is cut off (and then wrong). `data` says what
    each dataset was made of, by default all of the same. Every model's runs share the base checkpoint.
    """
    checkpoints, rows, done = [], [], set()
    for model, dataset, variant, replay, profile in arms:
        for seed in seeds:
            for at, step in enumerate(STEPS):
                weights = f"{model}-base" if step == 0 else f"{model}-{dataset}-{seed}-{step}"
                checkpoints.append(
                    {
                        "run": f"{model}/{dataset}/r/seed{seed}", "group": f"{model}/{dataset}/r",
                        "model": model, "dataset": dataset, "recipe": "r", "seed": seed, "step": step,
                        "tokens": 1000 * step, "variant": variant, "replay": replay, "checkpoint": weights,
                        "data": "same" if data is None else data[dataset],
                    }
                )  # fmt: skip
                if weights in done:
                    continue
                done.add(weights)
                for name, domain in benchmarks.items():
                    hard = np.random.default_rng(crc32(name.encode())).standard_normal(items)
                    for probe, chances in (("generate", profile), ("likelihood", likelihood)):
                        if chances is None or name not in chances:
                            continue
                        rng = np.random.default_rng(crc32(f"{weights}{name}{probe}".encode()))
                        for item in range(items):
                            for sample in range(samples):
                                luck = NormalDist().cdf(0.9 * hard[item] + 0.19**0.5 * rng.standard_normal())
                                stopped = probe == "likelihood" or rng.random() >= cut[at]
                                right = stopped and luck < chances[name][at]
                                long = lengths[at] * rng.uniform(0.8, 1.2)
                                rows.append(
                                    _row(weights, name, domain, probe, item, sample, right, stopped, long)
                                )
    return pl.DataFrame(rows, schema=SCHEMA), pl.DataFrame(checkpoints)


def _row(
    weights: str,
    name: str,
    domain: str,
    probe: str,
    item: int,
    sample: int,
    right: bool,
    stopped: bool,
    long: float,
) -> dict[str, object]:
    return {
        "checkpoint": weights, "benchmark": name, "domain": domain, "probe": probe, "item": f"{item:04d}",
        "cluster": "", "sample": sample, "prompt_hash": f"{name}{item}", "sampling_hash": "s", "engine": "e",
        "text": "", "reasoning": "", "answer": "", "closed": stopped,
        "finish": "stop" if stopped else "length",
        "n_tokens": round(long), "n_reasoning_tokens": round(long / 2), "extracted": "",
        "verdict": "correct" if right else "wrong" if stopped else "missing", "score": float(right),
        "margin": 0.0, "scorer": "v1",
    }  # fmt: skip
