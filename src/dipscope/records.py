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


def read(folder: Path) -> pl.DataFrame:
    """All records below `folder`, once each, in the canonical order.

    Raises:
        DipscopeError: a shard is damaged; `dipscope run` on the same study redoes just what it held.
    """
    tables = []
    for path in shards(folder):
        if not intact(path):
            raise DipscopeError(
                "the shard is damaged: its bytes do not match its name",
                str(path),
                "Run the study again: the damaged shard is set aside and only its records are redone.",
                fault=True,
            )
        tables.append(pl.read_parquet(path))
    if not tables:
        return pl.DataFrame(schema=SCHEMA)
    return pl.concat(tables).unique(subset=KEY, keep="first", maintain_order=True).sort(KEY)


def digest(table: pl.DataFrame) -> str:
    """Hash of the records' content, independent of how they are split over shards."""
    canonical = table.select(list(SCHEMA)).sort(KEY)
    return hashlib.sha256(canonical.write_ndjson().encode()).hexdigest()
