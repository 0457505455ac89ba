"""Records: one row per (checkpoint, benchmark, probe, item, sample), in append-only parquet shards.

A shard's name carries the SHA-256 of its bytes, so damage is seen when it is read and a half-written shard
is never taken for a whole one. Rows hold only what is reproducible: no clock, no path. Which run and step
a checkpoint belongs to is the workspace's to know; the same weights are measured once however many runs
share them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dipscope.errors import DipscopeError
from dipscope.workspace import write_atomic

SCHEMA: dict[str, Any] = {
    "checkpoint": pl.String,  # content hash of the weights
    "benchmark": pl.String,
    "domain": pl.String,
    "probe": pl.String,  # generate | likelihood
    "item": pl.String,
    "cluster": pl.String,
    "sample": pl.Int32,
    "prompt_hash": pl.String,
    "sampling_hash": pl.String,
    "engine": pl.String,
    "text": pl.String,
    "reasoning": pl.String,
    "answer": pl.String,
    "closed": pl.Boolean,
    "finish": pl.String,  # stop | length | error
    "n_tokens": pl.Int32,
    "n_reasoning_tokens": pl.Int32,
    "extracted": pl.String,
    "verdict": pl.String,  # correct | wrong | error | missing
    "score": pl.Float64,
    "margin": pl.Float64,  # likelihood probe: right option minus best wrong one, nats a token
    "scorer": pl.String,
}
KEY = ["checkpoint", "benchmark", "probe", "item", "sample"]
_SUFFIX = ".parquet"


def frame(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a table of exactly the record columns."""
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def append(folder: Path, table: pl.DataFrame) -> Path:
    """Write `table` as one more shard of `folder` and return its path."""
    buffer = io.BytesIO()
    table.select(list(SCHEMA)).cast(pl.Schema(SCHEMA)).write_parquet(buffer, compression="zstd")
    data = buffer.getvalue()
    path = folder / f"part-{hashlib.sha256(data).hexdigest()[:32]}{_SUFFIX}"
    write_atomic(path, data)
    return path


def shards(folder: Path) -> list[Path]:
    """The shards below `folder`, in a fixed order."""
    return sorted(folder.rglob(f"part-*{_SUFFIX}"))


def intact(path: Path) -> bool:
    """Whether a shard's bytes are those its name promises."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32] == path.stem.removeprefix("part-")


def read(paths: Iterable[Path]) -> pl.DataFrame:
    """The rows of the given shards.

    Raises:
        DipscopeError: a shard is missing or damaged; `dipscope run` makes again just what it held.
    """
    tables = []
    for path in paths:
        if not path.is_file() or not intact(path):
            raise DipscopeError(
                "the shard is missing or damaged",
                str(path),
                "Run the study again: only the records it held are made again.",
                fault=True,
            )
        tables.append(pl.read_parquet(path))
    return pl.concat(tables) if tables else pl.DataFrame(schema=SCHEMA)


def canonical(table: pl.DataFrame) -> pl.DataFrame:
    """Each record once, in an order that does not depend on when it was made.

    Where a record that ended in an error was made again, the other one counts.
    """
    failed = [pl.col("verdict").eq_missing("error"), pl.col("finish").eq_missing("error")]
    ordered = table.select(list(SCHEMA)).sort([*(pl.col(k) for k in KEY), *failed], maintain_order=True)
    return ordered.unique(KEY, keep="first", maintain_order=True)


def outcome() -> pl.Expr:
    """What became of each generated response, of the columns of a record.

    `extracted`: an answer was read out and judged. Else `truncated`: the token limit came first; `no answer`:
    nothing follows the thinking, or it was never closed; `format not followed`: something follows it, in
    which no answer of the expected form is found; `error`: the engine or the scorer failed.
    """
    return (
        pl.when(pl.col("verdict") == "error")
        .then(pl.lit("error"))
        .when(pl.col("verdict") != "missing")
        .then(pl.lit("extracted"))
        .when(pl.col("finish") == "length")
        .then(pl.lit("truncated"))
        .when(pl.col("answer").str.strip_chars() == "")
        .then(pl.lit("no answer"))
        .otherwise(pl.lit("format not followed"))
        .alias("outcome")
    )


def digest(table: pl.DataFrame) -> str:
    """Hash of the records' content, independent of how they are split over shards."""
    return hashlib.sha256(canonical(table).write_ndjson().encode()).hexdigest()
