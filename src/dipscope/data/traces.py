"""Trace tables: the training examples of one dataset, as parquet with provenance per row."""

from __future__ import annotations

import hashlib
import io
import itertools
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
    "verdict": pl.String,
    "source": pl.String,
    "context": pl.String,
    "finish": pl.String,
}


@dataclass(frozen=True, slots=True)
class Trace:
    """One training example.

    Attributes:
        id: unique in its table.
        query: id of the question; equal in every variant made from the same question.
        prompt: the user turn, without chat template.
        response: what is learned, with its thinking block if it has one; no end-of-turn token.
        gold: the gold answer as text, for Countdown the JSON object of numbers and target; empty where
            there is none.
        origin: who wrote it, such as `teacher`, `human` or `replay`.
        verdict: what an independent checker says of the response: `correct`, `wrong`, `error` or `missing`;
            empty where nothing was checked.
        source: where the row was read or how it was made, such as `Math-CoT-20k.parquet:17`.
        context: the turns before the prompt as a JSON list of messages; empty when there are none.
        finish: why the writer stopped, `stop` or `length`; empty where it is not known.
    """

    id: str
    query: str
    prompt: str
    response: str
    gold: str = ""
    origin: str = "teacher"
    verdict: str = ""
    source: str = ""
    context: str = ""
    finish: str = ""


def query_id(prompt: str, context: str = "") -> str:
    """Id of a question by its content: 16 hex digits, equal wherever the same question is asked.

    Case and white space do not count; `context` is that of `Trace`.
    """
    plain = " ".join(prompt.casefold().split())
    return hashlib.sha256(f"{context}\n{plain}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write(path: Path, traces: Iterable[Trace]) -> None:
    """Write a trace table, whole or not at all. The same traces give the same bytes."""
    rows, frames = iter(traces), [pl.DataFrame(schema=SCHEMA)]
    while chunk := [asdict(t) for t in itertools.islice(rows, 1024)]:  # few rows at a time as Python objects
        frames.append(pl.DataFrame(chunk, schema=SCHEMA))
    buffer = io.BytesIO()
    pl.concat(frames, rechunk=True).write_parquet(buffer, compression="zstd")
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
