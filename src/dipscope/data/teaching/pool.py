"""The folder a teacher's responses go to: append-only shards that survive any interruption.

Layout::

    part-<hash>.parquet     traces; a shard's name carries the SHA-256 of its bytes, so damage shows
    provenance.json         who wrote, how it was drawn, and the counts

A shard also says how many tokens its responses took (key `dipscope` of the parquet metadata): they are what a
hosted teacher charges for, and no column of a trace holds them.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from dipscope.data.traces import SCHEMA, Trace
from dipscope.errors import DipscopeError
from dipscope.workspace import unwritable, write_atomic

PROVENANCE = "provenance.json"
_META = "dipscope"


@dataclass
class Tally:
    """What a pool holds. Tokens are those the teacher reported; `uncounted` responses came without."""

    responses: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    finishes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    prompt_tokens: int = 0
    uncounted: int = 0

    def take(self, table: pl.DataFrame, spent: Mapping[str, int]) -> None:
        """Count a shard."""
        self.responses += table.height
        self.verdicts.update(table["verdict"].to_list())
        self.finishes.update(table["finish"].to_list())
        self.tokens += spent["tokens"]
        self.prompt_tokens += spent["prompt_tokens"]
        self.uncounted += spent["uncounted"]

    def as_dict(self) -> dict[str, Any]:
        """For the provenance, keys in a fixed order."""
        return {
            "responses": self.responses,
            "verdicts": dict(sorted(self.verdicts.items())),
            "finishes": dict(sorted(self.finishes.items())),
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "uncounted": self.uncounted,
        }


class Pool:
    """One pool, held by one process; to be used as a context.

    Args:
        folder: made if it is not there.
        identity: what all its responses have in common: the teacher and how it was asked. A pool that was
            begun under another identity is refused.

    Attributes:
        ids: of the responses it holds.
        tally: counts of them.
        notes: one line for each shard that was damaged and set aside.

    Raises:
        DipscopeError: the folder belongs to other settings, is in use, or cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = folder, dict(identity)
        self.ids: set[str] = set()
        self.tally = Tally()
        self.notes: list[str] = []
        self._lock = -1

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            what, fix = "another dipscope is sampling into this folder", "Wait for it or stop it."
            raise DipscopeError(what, str(self.folder), fix, fault=True) from None
        except OSError as error:
            self._release()
            raise unwritable(self.folder, error) from error
        try:
            self._recognize()
            self._read()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def append(self, rows: Sequence[tuple[Trace, int | None, int | None]]) -> None:
        """Write responses, each with its own and its prompt's tokens, as one more shard.

        The shard is on the disk, whole and under its name, before this returns.
        """
        if not rows:
            return
        spent = {
            "tokens": sum(made or 0 for _, made, _ in rows),
            "prompt_tokens": sum(given or 0 for _, _, given in rows),
            "uncounted": sum(made is None or given is None for _, made, given in rows),
        }
        table = pl.DataFrame([asdict(trace) for trace, _, _ in rows], schema=SCHEMA)
        buffer = io.BytesIO()
        table.write_parquet(buffer, compression="zstd", metadata={_META: json.dumps(spent)})
        data = buffer.getvalue()
        write_atomic(self.folder / f"part-{_name(data)}.parquet", data)
        self.ids.update(table["id"])
        self.tally.take(table, spent)

    def describe(self, **more: Any) -> None:
        """Write `provenance.json`: the identity, the counts, and what else is known."""
        facts = {**self.identity, **more, "counts": self.tally.as_dict()}
        write_atomic(self.folder / PROVENANCE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")

    def _recognize(self) -> None:
        path = self.folder / PROVENANCE
        if not path.is_file():
            if any(self.folder.glob("part-*.parquet")):
                fix = "Name an empty folder."
                raise DipscopeError("the folder holds a pool of unknown origin", str(self.folder), fix)
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            theirs = {name: known.get(name) for name in self.identity}
        except (ValueError, AttributeError):
            fix = "Name an empty folder."
            raise DipscopeError("the provenance cannot be read", str(path), fix) from None
        ours = json.loads(json.dumps(self.identity))
        for name, value in ours.items():
            if theirs[name] != value:
                what = f"the pool was sampled with {name} = {_brief(theirs[name])}, not {_brief(value)}"
                fix = "Ask as before to go on with it, or name another folder."
                raise DipscopeError(what, str(self.folder), fix)

    def _read(self) -> None:
        for stray in self.folder.glob(".*.tmp"):  # of a write that was cut short; nobody else writes here
            stray.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("part-*.parquet")):
            data = path.read_bytes()
            if _name(data) != path.stem.removeprefix("part-"):
                path.rename(path.with_suffix(".damaged"))
                self.notes.append(f"{path.name}: damaged, set aside; its responses are asked for again")
                continue
            spent = json.loads(pl.read_parquet_metadata(io.BytesIO(data))[_META])
            table = pl.read_parquet(io.BytesIO(data), columns=["id", "verdict", "finish"])
            self.ids.update(table["id"])
            self.tally.take(table, spent)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}…"
