"""Stored responses judged again, by today's scorer or under another protocol. Nothing is generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from dipscope import records
from dipscope.scoring.base import Benchmark, Item, Judgement
from dipscope.scoring.thinking import split
from dipscope.stored import KEY, Point
from dipscope.workspace import hash_json

# What a rescored record has besides the columns of a record.
BEFORE: dict[str, Any] = {
    "stored_scorer": pl.String,
    "stored_verdict": pl.String,
    "stored_score": pl.Float64,
    "stored_extracted": pl.String,
    "same_prompt": pl.Boolean,  # whether the protocol that it is judged under asks with the same words
}
Report = Callable[[int, int, str], None]  # done, total, note


@dataclass(frozen=True)
class Rescored:
    """One benchmark at one checkpoint, before and after.

    Attributes:
        benchmark: its name.
        checkpoint: content hash of the weights.
        name: which run and step that is.
        step: optimizer steps.
        engine: that generated the responses.
        records: how many were judged again.
        stored_scorers: the scorers of the stored verdicts.
        scorer: that judged now.
        stored_score: mean score of the stored verdicts in [0, 1], errors left out; None where all are errors.
        score: the same of the new ones.
        changed: verdicts that are not what they were.
        changes: how many went from which verdict to which, as `wrong → correct`.
        errors: new verdicts that are errors.
        other_prompt: responses to a prompt that the new protocol words differently.
    """

    benchmark: str
    checkpoint: str
    name: str
    step: int
    engine: str
    records: int
    stored_scorers: tuple[str, ...]
    scorer: str
    stored_score: float | None
    score: float | None
    changed: int
    changes: dict[str, int]
    errors: int
    other_prompt: int

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def rescore(
    table: pl.DataFrame, judges: Mapping[str, tuple[Benchmark, Mapping[str, Item]]], report: Report
) -> tuple[pl.DataFrame, Counter[str]]:
    """Judge stored responses again.

    Args:
        table: generated records, as `stored.generated` gives them.
        judges: for each benchmark of the table the one that judges now, and its items by id.
        report: called as work goes on.

    Returns:
        The records under the new verdicts, with the columns of `BEFORE`, in the order of the table; records
        whose item the judging benchmark does not have are left out. And why scorers failed, counted.
    """
    rows, reasons = [], Counter[str]()
    for place, row in enumerate(table.iter_rows(named=True)):
        report(place, len(table), row["benchmark"])
        benchmark, items = judges[row["benchmark"]]
        if (item := items.get(row["item"])) is None:
            continue
        before = {f"stored_{k}": row[k] for k in ("scorer", "verdict", "score", "extracted")}
        before["same_prompt"] = hash_json(item.prompt, 12) == row["prompt_hash"]
        # Unclosed thinking without any mark is what a prompt leaves that had opened it.
        response = split(row["text"], opened=not row["closed"])
        judged = Judgement("error")  # where the engine gave no response there is nothing to judge
        if row["finish"] != "error":
            try:
                judged = benchmark.judge(item, response)
            except Exception as error:  # a scorer that raises costs its record and nothing else
                reasons[" ".join(f"{type(error).__name__}: {error}".split())[:200]] += 1
        after = {
            "reasoning": response.reasoning,
            "answer": response.answer,
            "closed": response.closed,
            "extracted": judged.extracted,
            "verdict": judged.verdict,
            "score": judged.score,
            "scorer": benchmark.scorer,
        }
        rows.append({**row, **after, **before})
    report(len(table), len(table), "")
    return pl.DataFrame(rows, schema=records.SCHEMA | BEFORE, orient="row").sort(KEY), reasons


def summary(rescored: pl.DataFrame, points: Sequence[Point], names: Sequence[str]) -> list[Rescored]:
    """Before and after by benchmark and checkpoint, in the order of `names` and `points`.

    Args:
        rescored: as `rescore` gives it.
        points: the checkpoints of the study.
        names: its benchmarks.
    """
    order = {point.checkpoint: place for place, point in enumerate(points)}
    groups = [
        (str(benchmark), points[order[str(checkpoint)]], str(engine), rows)
        for (benchmark, checkpoint, engine), rows in rescored.group_by("benchmark", "checkpoint", "engine")
    ]
    groups.sort(key=lambda g: (names.index(g[0]), order[g[1].checkpoint], g[2]))
    return [_before_and_after(*group) for group in groups]


def _before_and_after(benchmark: str, point: Point, engine: str, rows: pl.DataFrame) -> Rescored:
    pairs = zip(rows["stored_verdict"], rows["verdict"], strict=True)
    changes = Counter(f"{was} → {now}" for was, now in pairs if was != now)
    return Rescored(
        benchmark=benchmark,
        checkpoint=point.checkpoint,
        name=point.name,
        step=point.step,
        engine=engine,
        records=len(rows),
        stored_scorers=tuple(sorted(rows["stored_scorer"].unique())),
        scorer=rows["scorer"][0],
        stored_score=_mean(rows, "stored_verdict", "stored_score"),
        score=_mean(rows, "verdict", "score"),
        changed=changes.total(),
        changes=dict(sorted(changes.items())),
        errors=int((rows["verdict"] == "error").sum()),
        other_prompt=int((~rows["same_prompt"]).sum()),
    )


def _mean(rows: pl.DataFrame, verdict: str, score: str) -> float | None:
    scores = rows.filter(pl.col(verdict) != "error")[score].drop_nulls()
    return float(scores.sum()) / len(scores) if len(scores) else None
