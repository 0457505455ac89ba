"""Verdicts on disk: verification that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from dipscope.data.building.pool import Report
from dipscope.scoring import verify
from dipscope.scoring.base import Judgement, Verdict
from dipscope.workspace import hash_json, write_atomic

FLUSH = 2048  # verdicts in a shard
_SCHEMA = {"key": pl.String, "verdict": pl.String}


class Judge(Protocol):
    """What reaches verdicts: `scoring.verifiers.Verifiers`."""

    def judge(self, pairs: Iterable[tuple[str, str | None]]) -> Iterator[Judgement]:
        """Judgements in the order of the pairs."""
        ...


def verdicts(
    pairs: Sequence[tuple[str, str]], judge: Judge, folder: Path, report: Report = None
) -> list[Verdict]:
    """The verdict of each different pair of gold and answer.

    What is not known yet is verified and appended to the folder, `FLUSH` verdicts at a time and in shards
    named by their content; a damaged shard is dropped. Verdicts of another version of the verifier have
    other keys.

    Args:
        pairs: gold and answer.
        judge: verifies.
        folder: of the shards; it may serve several builds.
        report: called with pairs done, pairs in all and a note.
    """
    known = _load(folder)
    keys = [_key(pair) for pair in pairs]
    todo = [i for i, key in enumerate(keys) if key not in known]
    judgements = judge.judge(pairs[i] for i in todo)
    fresh: dict[str, Verdict] = {}
    done = len(pairs) - len(todo)
    try:
        for i, judgement in zip(todo, judgements, strict=True):
            fresh[keys[i]] = known[keys[i]] = judgement.verdict
            done += 1
            if len(fresh) == FLUSH:
                _store(folder, fresh)
                fresh = {}
            if report:
                report(done, len(pairs), "different answers verified")
    finally:
        if fresh:
            _store(folder, fresh)
    return [known[key] for key in keys]


def _key(pair: tuple[str, str]) -> str:
    return hash_json([*pair, verify.VERSION], 32)


def _store(folder: Path, fresh: Mapping[str, Verdict]) -> None:
    buffer = io.BytesIO()
    table = pl.DataFrame({"key": list(fresh), "verdict": list(fresh.values())}, schema=_SCHEMA)
    table.write_parquet(buffer, compression="zstd")
    write_atomic(folder / f"{_name(buffer.getvalue())}.parquet", buffer.getvalue())


def _load(folder: Path) -> dict[str, Verdict]:
    known: dict[str, Verdict] = {}
    for shard in sorted(folder.glob("*.parquet")):
        data = shard.read_bytes()
        if _name(data) != shard.stem:
            shard.unlink()
            continue
        table = pl.read_parquet(io.BytesIO(data))
        known |= dict(zip(table["key"], table["verdict"], strict=True))
    return known


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]
