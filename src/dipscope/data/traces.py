"""Trace tables: the training examples of one dataset, as parquet with provenance per row."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from dipscope.errors import DipscopeError
from dipscope.workspace import write_atomic

SCHEMA = {
    "id": pl.String,
    "query": pl.String,
    "prompt": pl.String,
    "response": pl.String,
    "gold": pl.String,
    "origin": pl.String,
    "verified": pl.Boolean,
}


@dataclass(frozen=True)
class Trace:
    """One training example.

    Attributes:
        id: unique in its table.
        query: id of the question; equal in every variant made from the same question.
        prompt: the user turn, without chat template.
        response: what is learned, with its thinking block if it has one; no end-of-turn token.
        gold: the gold answer as JSON, empty where there is none.
        origin: who wrote it, such as `teacher` or `replay`.
        verified: an independent checker found the response right (for replay: it ended by itself).
    """

    id: str
    query: str
    prompt: str
    response: str
    gold: str = ""
    origin: str = "teacher"
    verified: bool = True


def write(path: Path, traces: Iterable[Trace]) -> None:
    """Write a trace table, whole or not at all."""
    buffer = io.BytesIO()
    pl.DataFrame([asdict(t) for t in traces], schema=SCHEMA).write_parquet(buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> list[Trace]:
    """Read a trace table.

    Raises:
        DipscopeError: the file is missing, damaged, or not a trace table.
    """
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DipscopeError(f"the trace table cannot be read ({error})", str(path), fault=True) from None
    missing = set(SCHEMA) - set(table.columns)
    if missing:
        raise DipscopeError(f"the trace table lacks the columns {', '.join(sorted(missing))}", str(path))
    return [Trace(**row) for row in table.select(list(SCHEMA)).iter_rows(named=True)]
