"""The questions a teacher is asked: those of a source, each once, with the request for steps and a box."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from dipscope.data.traces import Trace
from dipscope.engine.reply import storable
from dipscope.engine.text import Message
from dipscope.errors import DipscopeError

SUFFIX = r"Think step by step, and give your final answer in \boxed{}."


class Questions(Protocol):
    """Where the questions come from: `data.sources.Table`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies the source."""
        ...

    def stream(self) -> Iterator[Trace]:
        """The rows; only their question and gold answer matter here."""
        ...


class Query(NamedTuple):
    """A question as it is asked; the fields are those of `Trace`."""

    id: str
    prompt: str
    context: str
    gold: str
    source: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns before the question, and the question."""
        turns = json.loads(self.context) if self.context else []
        return (*((turn["role"], turn["content"]) for turn in turns), ("user", self.prompt))


def read(table: Questions, suffix: str, rows: int | None = None) -> list[Query]:
    """The first `rows` distinct questions of a table, or all.

    Raises:
        DipscopeError: there is none.
    """
    found: dict[str, Query] = {}
    for row in table.stream():
        if len(found) == rows:
            break
        if row.query not in found and row.prompt.strip():
            prompt = storable(with_suffix(row.prompt, suffix))
            found[row.query] = Query(row.query, prompt, row.context, row.gold, row.source)
    if not found:
        raise DipscopeError("the source has no questions", "source", "Check its columns.")
    return list(found.values())


def with_suffix(question: str, suffix: str) -> str:
    r"""A question and the request on a line of its own, unless it asks for a `\boxed` answer itself."""
    if not suffix or "\\boxed" in question:
        return question
    return f"{question.rstrip()}\n{suffix}"
