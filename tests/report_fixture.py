"""A made-up study with a realistic dip: 3 groups, 8 steps, 4 domains. Deterministic, no model needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from dipscope import records as recs
from dipscope.analysis.results import Analysis, Curve, Estimate, Finding, Loss, Point, Shape

STEPS = (0, 10, 20, 40, 80, 160, 320, 640)
DATASETS = ("cot", "no_cot", "answer_only")
DOMAINS = {
    "in_domain": ("gym/countdown", "math/500"),
    "ood_reasoning": ("gym/zebra", "code/live"),
    "ood_general": ("choice/mmlu", "ifeval/strict"),
    "safety": ("judged/refusal",),
}
# (base, depth of the dip, gain at the end) of each domain under each dataset
_LEVELS = {
    "in_domain": {"cot": (0.42, 0.06, 0.31), "no_cot": (0.42, 0.0, 0.12), "answer_only": (0.42, 0.02, 0.05)},
    "ood_reasoning": {
        "cot": (0.35, 0.12, 0.10),
        "no_cot": (0.35, 0.02, 0.02),
        "answer_only": (0.35, 0.05, -0.05),
    },
    "ood_general": {
        "cot": (0.55, 0.15, 0.04),
        "no_cot": (0.55, 0.03, 0.01),
        "answer_only": (0.55, 0.08, -0.09),
    },
    "safety": {"cot": (0.88, 0.03, -0.19), "no_cot": (0.88, 0.01, -0.02), "answer_only": (0.88, 0.02, -0.04)},
}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "{{ 7 * 7 }} {% raw %} ${7*7} {# gone #}",
    "<!-- <script> & &amp; &lt;b&gt; \u2028\u2029",
    "nul \x00 bell \x07 escape \x1b[31mred\x1b[0m backspace \x08",
    "x" * 6000,
    "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    'javascript:alert(1) \'onmouseover="alert(1)"',
)


def _value(step: int, base: float, depth: float, gain: float) -> float:
    if step == 0:
        return base
    x = math.log2(step / 10)
    return base - depth * math.exp(-((x - 1.5) ** 2) / 2.2) + gain / (1 + math.exp(-(x - 3.2) * 1.4))


def _points(domain: str, dataset: str, shift: float, half: float) -> tuple[Point, ...]:
    base, depth, gain = _LEVELS[domain][dataset]
    points = []
    for step in STEPS:
        score = min(0.98, max(0.02, _value(step, base + shift, depth, gain)))
        long = dataset == "cot" and step > 0
        cut = 0.38 * math.exp(-((math.log2(step / 10) - 0.8) ** 2) / 3) if long else 0.02
        tokens = 180 + (1500 * math.exp(-((math.log2(step / 10) - 1) ** 2) / 4) + 500 if long else 0)
        points.append(
            Point(
                step=step,
                score=score,
                low=score - half,
                high=score + half,
                completed=min(1.0, score / (1 - 0.8 * cut)),
                lower_bound=score - 0.1 * cut,
                upper_bound=min(1.0, score + 0.9 * cut),
                truncated=cut,
                unclosed=cut * 0.9,
                missing=0.03 + 0.05 * (step > 0),
                coverage=0.998,
                tokens=tokens,
                reasoning_tokens=tokens * 0.8,
            )
        )
    return tuple(points)


def _losses(points: tuple[Point, ...]) -> tuple[Loss, ...]:
    base, found = points[0], []
    for p in points:
        change, cut, gone = (
            p.score - base.score,
            -(p.truncated - base.truncated) * 0.5,
            -(p.missing - base.missing),
        )
        found.append(Loss(p.step, change, cut, gone, change - cut - gone))
    return tuple(found)


def _shape(points: tuple[Point, ...], half: float) -> Shape:
    base, last = points[0].score, points[-1].score
    trough = min(points[1:-1], key=lambda p: p.score)
    depth, net = base - trough.score, last - base
    dip = depth > 2 * half
    label: Any = (
        "dip-and-overshoot" if dip and net > half else "dip-and-recover" if dip and net > -half else "flat"
    )
    label = "fall-and-stay" if net < -2 * half else "rise" if not dip and net > half else label
    return Shape(
        label=label,
        p_dip=0.002 if dip else 0.6,
        p_dip_holm=0.008 if dip else 1.0,
        p_dip_completed=0.21 if dip else None,
        trough_step=trough.step if dip else None,
        depth=Estimate(depth, depth - half, depth + half) if dip else None,
        depth_corrected=depth * 0.9 if dip else None,
        recovery=Estimate(last - trough.score, last - trough.score - half, last - trough.score + half),
        net=Estimate(net, net - half, net + half),
        small_n=False,
    )


def curves(seeds: tuple[int, ...] = (0, 1)) -> tuple[Curve, ...]:
    found = []
    for domain, names in DOMAINS.items():
        for level, name, shift, half in [
            ("domain", domain, 0.0, 0.025),
            *(("benchmark", n, 0.04 * (-1) ** i, 0.045) for i, n in enumerate(names)),
        ]:
            for dataset in DATASETS:
                points = _points(domain, dataset, shift, half)
                for probe in ("generate", "likelihood") if name == "choice/mmlu" else ("generate",):
                    if probe == "likelihood":
                        points = tuple(
                            Point(
                                **{
                                    **p.__dict__,
                                    "score": 0.61 - 0.0004 * p.step / 10,
                                    "low": 0.58,
                                    "high": 0.64,
                                }
                            )
                            for p in points
                        )
                    found.append(
                        Curve(
                            group=f"tiny/{dataset}/default",
                            model="tiny",
                            dataset=dataset,
                            recipe="default",
                            seeds=seeds,
                            level=level,
                            name=name,
                            domain=domain,
                            probe=probe,
                            items=200,
                            samples=400,
                            points=points,
                            losses=_losses(points),
                            shape=_shape(points, half) if level == "domain" else None,
                        )
                    )
    return tuple(found)


def findings() -> tuple[Finding, ...]:
    seed = "One training seed: the interval covers the choice of items, not of runs."
    return (
        Finding(
            "dip",
            "Out-of-domain reasoning dips early and recovers",
            "tiny/cot/default, ood_reasoning",
            "max–min over interior troughs, multiplier bootstrap",
            "supported",
            Estimate(-0.117, -0.151, -0.083),
            "score",
            0.002,
            200,
            2,
            ("Half of the dip is truncation.",),
            "",
            "score-ood_reasoning",
        ),
        Finding(
            "cot-beats",
            "CoT traces transfer further than the same answers without CoT",
            "cot − no_cot, last step",
            "paired difference over items",
            "supported",
            Estimate(0.081, 0.06, 0.102),
            "score",
            0.0004,
            200,
            2,
        ),
        Finding(
            "safety",
            "Reasoning gains cost safety",
            "cot − no_cot, safety",
            "paired difference over items",
            "contradicted",
            Estimate(0.004, -0.011, 0.019),
            "score",
            0.61,
            120,
            2,
            ("Small benchmark (n = 120).",),
        ),
        Finding(
            "length",
            "Responses surge, then contract",
            "tiny/cot/default",
            "ratio of mean lengths",
            "inconclusive",
            Estimate(212.0, -40.0, 464.0),
            "tokens",
            0.08,
            400,
            1,
            (seed,),
            "",
            "length-in_domain",
        ),
        Finding(
            "capability",
            "Stronger models gain more",
            "",
            "rank correlation over models",
            "not tested",
            needs="At least four models of different size, trained alike.",
        ),
    )


def analysis(**changes: Any) -> Analysis:
    whole = {
        "study": "countdown-transfer",
        "records": 35_000,
        "records_digest": "9f2c" * 16,
        "curves": curves(),
        "findings": findings(),
        "notes": ("Likelihood was measured on choice/mmlu only.",),
        "meta": {},
    }
    return Analysis(**{**whole, **changes})


def checkpoints(seeds: tuple[int, ...] = (0, 1)) -> pl.DataFrame:
    rows = []
    for dataset in DATASETS:
        for seed in seeds:
            for step in STEPS:
                name = "base" if step == 0 else f"{dataset}-{seed}-{step}"
                rows.append(
                    {
                        "run": f"tiny/{dataset}/default/{seed}",
                        "group": f"tiny/{dataset}/default",
                        "model": "tiny",
                        "dataset": dataset,
                        "recipe": "default",
                        "seed": seed,
                        "step": step,
                        "tokens": step * 1000,
                        "variant": dataset,
                        "replay": 0.0,
                        "checkpoint": name,
                    }
                )
    return pl.DataFrame(rows)


def records(items: int = 12, hostile: bool = True) -> pl.DataFrame:
    """Responses of every checkpoint; with `hostile`, the first item of a benchmark attacks the page."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for checkpoint in checkpoints()["checkpoint"].unique(maintain_order=True).to_list():
        for domain, names in DOMAINS.items():
            for name in names:
                for item in range(items):
                    for sample in range(2):
                        kind = rng.choice(["correct", "wrong", "missing"], p=[0.5, 0.4, 0.1])
                        attack = HOSTILE[len(rows) % len(HOSTILE)] if hostile and item == 0 else ""
                        thought = (
                            ""
                            if checkpoint == "base"
                            else f"First, look at item {item}.\nThen 3 × 4 = 12. {attack}"
                        )
                        answer = f"The answer is {item + 1}. {attack}"
                        rows.append(
                            {
                                "checkpoint": checkpoint,
                                "benchmark": name,
                                "domain": domain,
                                "probe": "generate",
                                "item": f"item-{item:03d}",
                                "cluster": f"item-{item:03d}",
                                "sample": sample,
                                "prompt_hash": "p",
                                "sampling_hash": "s",
                                "engine": "mock",
                                "text": f"<think>{thought}</think>{answer}",
                                "reasoning": thought,
                                "answer": answer,
                                "closed": True,
                                "finish": "length" if kind == "missing" else "stop",
                                "n_tokens": 40 + 3 * item,
                                "n_reasoning_tokens": 20,
                                "extracted": str(item + 1),
                                "verdict": str(kind),
                                "score": 1.0 if kind == "correct" else 0.0,
                                "margin": None,
                                "scorer": "test",
                            }
                        )
    return recs.frame(rows)
