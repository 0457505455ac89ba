"""A bounded, deterministic choice of real responses for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from dipscope.report.words import clean

FIRST = 3  # items taken in order, so that not only the unstable ones are seen
BUDGET = 5_000_000  # bytes of JSON
# (items per benchmark, characters per response), tried in this order until the budget holds.
LADDER = (
    (8, 8000),
    (8, 4000),
    (8, 2000),
    (6, 1500),
    (4, 1000),
    (3, 800),
    (2, 500),
    (1, 300),
    (1, 100),
    (0, 0),
)
_WANTED = [
    "checkpoint", "benchmark", "domain", "item", "text", "reasoning", "answer", "closed", "finish",
    "n_tokens", "n_reasoning_tokens", "extracted", "verdict", "score",
]  # fmt: skip


Prompts = Mapping[tuple[str, str], str]  # (benchmark, item) → the question as it was asked


def choose(
    records: pl.DataFrame, checkpoints: pl.DataFrame, prompts: Prompts, budget: int = BUDGET
) -> dict[str, Any]:
    """Responses over the steps for a few items of each benchmark.

    The first items of a benchmark, then those whose verdict changes most often along the runs. Of several
    samples the first is shown. Responses are stored once per checkpoint, however many runs share it.

    Returns:
        `runs`: group, seed and [step, checkpoint index] pairs; `benchmarks`: their items, each with
        `responses` from checkpoint index to response.
    """
    runs = checkpoints.sort("group", "seed", "run", "step")
    known = runs["checkpoint"].unique(maintain_order=True).to_list()
    index = {c: i for i, c in enumerate(known)}
    key = ["checkpoint", "benchmark", "item"]
    table = (
        records.filter((pl.col("probe") == "generate") & pl.col("checkpoint").is_in(known))
        .sort(*key, "sample")
        .unique(key, keep="first", maintain_order=True)
        .select(_WANTED)
    )
    ranked = _rank(table, runs)
    listed = [
        {
            "group": clean(group), "seed": seed,
            "steps": [[s, index[c]] for s, c in zip(part["step"], part["checkpoint"], strict=True)],
        }
        for (group, seed, _), part in runs.group_by("group", "seed", "run", maintain_order=True)
    ]  # fmt: skip
    for items, limit in LADDER:
        shown = table.join(ranked.filter(pl.col("rank") < items), on=["benchmark", "item"], how="inner")
        if _rough_size(shown, limit) > budget:
            continue
        chosen = {"runs": listed, "benchmarks": _benchmarks(shown, index, prompts, limit)}
        if len(embed(chosen)) <= budget or not items:
            return chosen
    raise AssertionError("the last rung shows nothing and always fits")


def embed(value: Any) -> str:
    """JSON that is inert inside a script element whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _rank(table: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Benchmark, item, `changes` of verdict over all runs, and `rank` (0 is shown first)."""
    changes = (
        runs.select("run", "step", "checkpoint")
        .join(table.select("checkpoint", "benchmark", "item", "verdict"), on="checkpoint")
        .sort("run", "benchmark", "item", "step")
        .with_columns(
            changed=pl.col("verdict")
            .ne(pl.col("verdict").shift().over("run", "benchmark", "item"))
            .fill_null(False)
        )
        .group_by("benchmark", "item")
        .agg(changes=pl.col("changed").sum())
        .sort("benchmark", "item")
        .with_columns(place=pl.int_range(pl.len()).over("benchmark"))
    )
    late = pl.col("place") >= FIRST
    return changes.sort(
        "benchmark", late, pl.when(late).then(-pl.col("changes").cast(pl.Int64)).otherwise(0), "item"
    ).with_columns(rank=pl.int_range(pl.len()).over("benchmark"))


def _rough_size(shown: pl.DataFrame, limit: int) -> int:
    lengths = shown.select(
        pl.sum_horizontal(pl.col(c).str.len_chars().fill_null(0) for c in ("reasoning", "answer"))
    )
    return int(lengths.to_series().clip(upper_bound=limit).sum()) + 120 * len(shown)


def _benchmarks(
    shown: pl.DataFrame, index: dict[str, int], prompts: Prompts, limit: int
) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in shown.sort("benchmark", "rank", "checkpoint").iter_rows(named=True):
        place = found.setdefault(
            row["benchmark"], {"name": clean(row["benchmark"]), "domain": clean(row["domain"]), "items": {}}
        )
        prompt = _elide(clean(prompts.get((row["benchmark"], row["item"]), "")), limit)
        item = place["items"].setdefault(
            row["item"],
            {"item": clean(row["item"]), "prompt": prompt, "changes": row["changes"], "responses": {}},
        )
        item["responses"][str(index[row["checkpoint"]])] = _response(row, limit)
    return [{**b, "items": list(b["items"].values())} for b in found.values()]


def _response(row: dict[str, Any], limit: int) -> dict[str, Any]:
    reasoning, answer = row["reasoning"] or "", row["answer"] or ""
    if not reasoning and not answer:
        answer = row["text"] or ""
    share = limit if not reasoning else limit // 2
    return {
        "reasoning": _elide(clean(reasoning), share), "answer": _elide(clean(answer), share),
        "closed": row["closed"], "finish": row["finish"], "tokens": row["n_tokens"],
        "thought": row["n_reasoning_tokens"], "verdict": row["verdict"], "score": row["score"],
        "extracted": clean(row["extracted"] or "")[:200],
    }  # fmt: skip


def _elide(text: str, limit: int) -> str:
    """The beginning and the end of a long text, with what was left out counted."""
    if len(text) <= limit:
        return text
    head = 2 * limit // 3
    tail = limit - head
    return f"{text[:head]}\n[… {len(text) - limit} characters …]\n{text[len(text) - tail :]}"
