"""Judgements on disk: append-only parquet shards named by their own hash, as records are.

A row is one verdict of one judge under one rubric on one view of one text. It names the text by hashes of
question and response, so that it joins every record of that text whichever checkpoint wrote it, and a
response that several checkpoints give is judged once.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dipscope.workspace import hash_json, write_atomic

FOLDER = "judgements"  # below a workspace
View = Literal["answer", "trace", "paper"]
VIEWS: tuple[View, ...] = ("answer", "trace", "paper")

SCHEMA: dict[str, Any] = {
    "key": pl.String,  # hash of judge, rubric and everything that was asked
    "judge": pl.String,
    "rubric": pl.String,
    "view": pl.String,  # answer | trace | paper
    "benchmark": pl.String,
    "item": pl.String,
    "prompt_hash": pl.String,  # as in the records
    "text_hash": pl.String,  # of the record's text
    "protocol": pl.String,  # of the record's own scorer; empty where it has none
    "probe": pl.String,  # where the verdict goes: generate, or a probe of its own
    "verdict": pl.String,  # correct | wrong; error where the reply was no grade
    "score": pl.Float64,
    "extracted": pl.String,  # the grade in the rubric's terms; of a reward model the raw reward
    "reply": pl.String,
    "reason": pl.String,  # why there is no grade
    "tries": pl.Int32,
    "n_prompt_tokens": pl.Int64,  # of all tries
    "n_tokens": pl.Int64,
}


# What tells one verdict from another, and what joins it to records.
ONE = ("key", "benchmark", "item", "prompt_hash", "text_hash", "protocol", "view", "probe")
AT = ("benchmark", "item", "prompt_hash", "text_hash", "protocol")


def text_hash(text: str) -> str:
    """Names a response."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def protocol(scorer: str) -> str:
    """The protocol that a record's scorer names at its end.

    The same response under two protocols is two cases: other references, or another view of it.
    """
    named = scorer.rpartition("+")[2]
    return named if named in ("strict", "paper") else ""


def key(judge: str, rubric: str, asked: Any) -> str:
    """Names a judgement: who, by which rubric, and what was asked."""
    return hash_json([judge, rubric, asked], 32)


def append(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one more shard; none makes no shard."""
    table = pl.DataFrame(list(rows), schema=SCHEMA, orient="row")
    if table.is_empty():
        return
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    data = buffer.getvalue()
    write_atomic(folder / f"part-{hashlib.sha256(data).hexdigest()[:32]}.parquet", data)


def replies(folder: Path) -> pl.DataFrame:
    """All rows of a folder, those included that later ones took the place of: every one was paid for.

    A damaged shard is set aside: what it held is asked again.
    """
    tables = [pl.DataFrame(schema=SCHEMA)]
    for path in sorted(folder.glob("part-*.parquet")):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:32] != path.stem.removeprefix("part-"):
            path.rename(path.with_suffix(".damaged"))
            continue
        tables.append(pl.read_parquet(io.BytesIO(data)))
    return pl.concat(tables)


def read(folder: Path) -> pl.DataFrame:
    """All judgements of a folder, each once: a grade before a reply without one."""
    return settled(replies(folder))


def settled(rows: pl.DataFrame) -> pl.DataFrame:
    """Each judgement once, in a fixed order."""
    invalid = pl.col("verdict") == "error"
    return rows.sort(*ONE, invalid, maintain_order=True).unique(ONE, keep="first", maintain_order=True)
