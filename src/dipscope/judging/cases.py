"""From records to what a judge is asked: which texts of which benchmarks, and which view of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from dipscope.judging import store
from dipscope.judging.rubrics import Case
from dipscope.judging.store import View
from dipscope.workspace import hash_json


@dataclass(frozen=True)
class Wanted:
    """One text to judge, and how it is found again among the records."""

    benchmark: str
    item: str
    prompt_hash: str
    text_hash: str
    protocol: str
    view: View
    case: Case

    def row(self) -> dict[str, Any]:
        """The columns that join it to records."""
        return {name: getattr(self, name) for name in (*store.AT, "view")}


def wanted(
    table: pl.DataFrame,
    benchmark: str,
    case: Callable[[str, str], Case | None],
    view: View,
    share: float = 1.0,
) -> list[Wanted]:
    """The distinct texts of a benchmark that have something to judge, in a fixed order.

    Args:
        table: records.
        benchmark: its name.
        case: the case of an item and of what is judged; None for an item that the benchmark does not have.
        view: `answer` is what follows the thinking, `trace` all of it, `paper` the answer where the thinking
            was closed and all of it where it was not.
        share: of the items, chosen by their hashes: two judges given one share judge the same ones, whole.
    """
    rows = table.filter(
        (pl.col("benchmark") == benchmark) & (pl.col("probe") == "generate") & (pl.col("finish") != "error")
    )
    found: dict[tuple[str, str, str, str], Wanted] = {}
    for row in rows.iter_rows(named=True):
        text = shown(row, view)
        asked = case(row["item"], text) if text.strip() else None
        if asked is None:
            continue
        said = store.text_hash(row["text"])
        at = row["item"], row["prompt_hash"], said, store.protocol(row["scorer"])
        found.setdefault(at, Wanted(benchmark, *at, view, asked))
    return [w for _, w in sorted(found.items()) if drawn(benchmark, w.item) < share]


def shown(record: Mapping[str, Any], view: View) -> str:
    """What of a record a view judges; empty where there is nothing."""
    if view == "answer" or (view == "paper" and record["closed"]):
        return str(record["answer"] or "")
    return str(record["text"] or "")


def drawn(benchmark: str, item: str) -> float:
    """A number in [0, 1) that follows from the item alone: those below a share are in it."""
    return int(hash_json([benchmark, item], 12), 16) / 16**12
