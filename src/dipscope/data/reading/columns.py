"""How the columns of a foreign table map to the fields of a trace: inferred, shown, or given."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dipscope.data.reading.turns import (
    BadRow,
    Turn,
    context_text,
    describe_type,
    finish_text,
    gold_text,
    is_chat,
    parsed_chat,
    turns,
)
from dipscope.errors import DipscopeError

FIELDS = ("prompt", "response", "gold", "context", "finish", "query", "origin", "verdict", "source")

_CHATS = ("message", "messages", "conversations", "conversation")
_PROMPTS = ("prompt", "problem", "question", "query", "instruction")
_RESPONSES = (
    "response", "responses", "completion", "completions", "output", "outputs", "generation", "generations",
    "solution", "solutions", "generated_solution",
)  # fmt: skip
_ANSWERS = ("answer", "answers")  # the response where nothing else is, else the gold answer
_GOLDS = ("gold", "answer", "expected_answer", "ground_truth", "final_answer", "reference_answer",
          "reward_model.ground_truth")  # fmt: skip
_FINISHES = ("finish", "finish_reason", "finish_reasons", "stop_reason")
_SYSTEMS = ("system", "system_prompt")
_OURS = {"id", "query", "prompt", "response", "gold", "origin"}  # a trace table of any version has these
# Whole layouts that would be ambiguous column by column: the paper's, and OpenR1-Math-220k's.
_LAYOUTS = (("message", "response"), ("problem", "generations"))
_VERDICTS = ("", "correct", "wrong", "error", "missing")


class Row(NamedTuple):
    """One row in canonical form; `responses` has one entry, or several where the table keeps a list.

    `query` is empty where its content shall decide, `origin` where the table does not say.
    """

    prompt: str
    context: str
    responses: Sequence[str]
    finishes: Sequence[str]
    gold: str
    query: str
    origin: str
    verdict: str
    source: str


@dataclass(frozen=True)
class Columns:
    """A mapping from fields to foreign columns.

    Attributes:
        fields: field → column; `a.b` reads the entry `b` of a structured column `a`, `a+b` joins two text
            columns with a newline.
        kinds: column → `text`, `texts`, `chat`, `number`, `struct`, `other` or `nothing`, as in the head.
        unused: columns that are not read.
    """

    fields: Mapping[str, str]
    kinds: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys(c for name in self.fields.values() for c in _parts(name, self.kinds)))

    def describe(self) -> str:
        """The mapping for a reader: `prompt ← message (last user turn), response ← response, …`."""
        shown = []
        for name in FIELDS:
            column = self.fields.get(name)
            if column is None:
                continue
            note = ""
            if self.kinds.get(column) == "chat" and name in ("prompt", "response"):
                note = " (last user turn)" if name == "prompt" else " (last assistant turn)"
            elif self.kinds.get(column) == "texts" and name == "response":
                note = " (a list: one trace each)"
            shown.append(f"{name} ← {column}{note}")
        text = ", ".join(shown)
        return f"{text}; not read: {', '.join(self.unused)}" if self.unused else text

    def read(self, row: Mapping[str, Any]) -> Row:
        """One foreign row in canonical form.

        Raises:
            BadRow: a value is missing or of the wrong type.
        """
        fields = self.fields
        prompt_column, response_column = fields["prompt"], fields.get("response")
        before: list[Turn] = []
        closing: str | None = None
        if self.kinds.get(prompt_column) == "chat":
            before = turns(_value(row, prompt_column), prompt_column)
            if before[-1]["role"] == "assistant" and response_column in (None, prompt_column):
                closing = before.pop()["content"]
            if not before or before[-1]["role"] != "user":
                raise BadRow(f"{prompt_column} does not end in a turn of the user")
            prompt = before.pop()["content"]
        else:
            prompt = self._text(row, prompt_column)
        responses: Sequence[str] = ("",)
        if response_column == prompt_column:
            if closing is None:
                raise BadRow(f"{prompt_column} does not end in a turn of the assistant")
            responses = (closing,)
        elif response_column is not None:
            responses = self._responses(row, response_column)
        return Row(
            prompt,
            self._context(row, before),
            responses,
            self._finishes(row, len(responses)) if "finish" in fields else ("",) * len(responses),
            gold_text(_value(row, fields["gold"])) if "gold" in fields else "",
            self._optional(row, "query") if "query" in fields else "",
            self._optional(row, "origin") if "origin" in fields else "",
            self._verdict(row) if "verdict" in fields else "",
            self._optional(row, "source") if "source" in fields else "",
        )

    def _text(self, row: Mapping[str, Any], column: str) -> str:
        parts = _parts(column, self.kinds)
        if len(parts) > 1:
            texts = [self._text(row, parts[0]), *(str(row.get(p) or "") for p in parts[1:])]
            return "\n".join(t for t in texts if t.strip())
        value = _value(row, column)
        if not isinstance(value, str):
            raise BadRow(f"{column} is {describe_type(value)}, not text")
        return value

    def _responses(self, row: Mapping[str, Any], column: str) -> Sequence[str]:
        value = _value(row, column)
        if isinstance(value, str) and self.kinds.get(column) != "chat":
            return (value,)
        if self.kinds.get(column) == "chat":
            answer = turns(value, column)
            if len(answer) != 1 or answer[0]["role"] != "assistant":
                raise BadRow(f"{column} is not one turn of the assistant")
            return (answer[0]["content"],)
        if self.kinds.get(column) != "texts" or not isinstance(value, list):
            raise BadRow(f"{column} is {describe_type(value)}, not text")
        for text in value:
            if not isinstance(text, str):
                raise BadRow(f"{column} holds {describe_type(text)}, not text")
        return value

    def _context(self, row: Mapping[str, Any], before: list[Turn]) -> str:
        column = self.fields.get("context")
        if column is None or column == self.fields["prompt"]:
            return context_text(before)
        value = _value(row, column)
        if value is None or (isinstance(value, str) and not value.strip()):
            return context_text(before)
        if isinstance(value, str) and parsed_chat(value) is None:
            given = [{"role": "system", "content": value}]
        else:
            given = turns(value, column)
        # A chat with a system turn of its own does not get a second one.
        return context_text(before if before and before[0]["role"] == "system" else given + before)

    def _finishes(self, row: Mapping[str, Any], n: int) -> Sequence[str]:
        value = _value(row, self.fields["finish"])
        if isinstance(value, list):
            if len(value) != n:
                raise BadRow(f"{self.fields['finish']} has {len(value)} entries for {n} responses")
            return [finish_text(v) for v in value]
        return [finish_text(value)] * n

    def _verdict(self, row: Mapping[str, Any]) -> str:
        value = _value(row, self.fields["verdict"])
        if isinstance(value, bool):
            return "correct" if value else "wrong"
        if (value or "") not in _VERDICTS:
            raise BadRow(f"{self.fields['verdict']} is no verdict; they are {', '.join(_VERDICTS[1:])}")
        return value or ""

    def _optional(self, row: Mapping[str, Any], name: str) -> str:
        value = _value(row, self.fields[name])
        return "" if value is None else str(value)


def infer(
    names: Sequence[str],
    head: Sequence[Mapping[str, Any]],
    given: Mapping[str, str] | None = None,
    *,
    need_response: bool = True,
    where: str = "",
) -> Columns:
    """Map columns to fields by their names and by what the first rows hold.

    Args:
        names: the columns of the table.
        head: some of its first rows.
        given: field → column, which overrides what would be inferred; an empty column means none.
        need_response: False maps no response: only the questions are wanted.
        where: the table, for errors.

    Raises:
        DipscopeError: a given field or column does not exist, or the prompt, the response or the gold
            answer has no candidate or several; the message names them and the mapping to write.
    """
    given = dict(given or {})
    kinds = {name: _kind(row.get(name) for row in head) for name in names}
    _check(given, kinds, where)
    fields = {name: column for name, column in given.items() if column}
    taken = {c for column in fields.values() for c in _parts(column, kinds)}
    if set(names) >= _OURS and not {"prompt", "response"} & set(given):
        for name in FIELDS:
            if name in kinds and name not in given:
                fields[name] = name
        kinds |= dict.fromkeys(("prompt", "response"), "text")  # whatever the text looks like
    else:
        closed = frozenset(n for n, kind in kinds.items() if kind == "chat" and _closed(head, n))
        free = {n: kind for n, kind in kinds.items() if n not in taken}
        search = _Search(kinds, free, closed, given, where)
        search.prompt_and_response(fields, need_response)
        search.others(fields)
    if not need_response:
        for name in ("response", "finish", "verdict"):
            fields.pop(name, None)
    ordered = {name: fields[name] for name in FIELDS if name in fields}
    read = {c for column in ordered.values() for c in _parts(column, kinds)}
    return Columns(ordered, kinds, tuple(n for n in names if n not in read))


@dataclass(frozen=True)
class _Search:
    """The columns that are still free, by kind; `closed` are the chats that end in an assistant turn."""

    kinds: Mapping[str, str]
    free: Mapping[str, str]
    closed: frozenset[str]
    given: Mapping[str, str]
    where: str

    def prompt_and_response(self, fields: dict[str, str], need_response: bool) -> None:
        for prompt, response in _LAYOUTS:
            whole = self._among((prompt,)) and self._among((response,), "texts")
            if whole and not {"prompt", "response"} & set(self.given):
                fields.update(prompt=prompt, response=response)
                return
        if "response" not in fields and need_response:
            whole = [n for n in _CHATS if n in self.closed and (n in self.free or n == fields.get("prompt"))]
            found = self._among(_RESPONSES, "texts") + whole or self._among(_ANSWERS, "texts")
            fields["response"] = self._one("response", found)
        if "prompt" not in fields:
            if fields.get("response") in self.closed.intersection(_CHATS):
                fields["prompt"] = fields["response"]
            else:
                chats = [n for n in _CHATS if self.free.get(n) == "chat"]
                found = self._among(_PROMPTS) or self._among(("input",))
                found = found + [n for n in chats if n not in self.closed] or chats
                fields["prompt"] = self._one("prompt", [n for n in found if n != fields.get("response")])
        joined = fields["prompt"] == "instruction" and self.free.get("input") in ("text", "nothing")
        if joined and "prompt" not in self.given:
            fields["prompt"] = "instruction+input"

    def others(self, fields: dict[str, str]) -> None:
        used = {c for column in fields.values() for c in _parts(column, self.kinds)}
        left = [n for n in self.kinds if n not in used]
        if "gold" not in self.given:
            found = [n for n in _GOLDS if n.partition(".")[0] in left]
            found = [n for n in found if "." not in n or self.kinds[n.partition(".")[0]] == "struct"]
            if found:
                fields["gold"] = "gold" if "gold" in found else self._one("gold", found)
        for name, known in (("finish", _FINISHES), ("context", _SYSTEMS), ("origin", ("origin",))):
            found = [n for n in known if n in left]
            if found and name not in self.given:
                fields[name] = found[0]

    def _among(self, known: Sequence[str], *kinds: str) -> list[str]:
        """Free columns of these names that hold text, chats or `kinds`; else those that hold nothing."""
        found = [n for n in known if self.free.get(n) in ("text", "chat", *kinds)]
        return found or [n for n in known if self.free.get(n) == "nothing"]

    def _one(self, name: str, found: Sequence[str]) -> str:
        if len(found) == 1:
            return found[0]
        if found:
            nothing = f' (or {name} = "" for none)' if name == "gold" else ""
            raise DipscopeError(
                f"{' and '.join(found)} could each be the {name}",
                self.where,
                f'Say which: columns = {{ {name} = "{found[0]}" }}{nothing}.',
            )
        raise DipscopeError(
            f"no column looks like the {name}; there are {', '.join(self.kinds)}",
            self.where,
            f'Say which it is: columns = {{ {name} = "…" }}.',
        )


def _check(given: Mapping[str, str], kinds: Mapping[str, str], where: str) -> None:
    for name, column in given.items():
        if name not in FIELDS:
            raise DipscopeError(
                f"columns has no field '{name}'",
                where,
                f"Fields are {', '.join(FIELDS)}; each names a column.",
            )
        if not column and name in ("prompt", "response"):
            raise DipscopeError(f"columns.{name} is empty", where, "Name a column or leave it out.")
        for part in _parts(column, kinds) if column else ():
            if part not in kinds:
                near = difflib.get_close_matches(part, kinds, n=1)
                hint = f"Did you mean '{near[0]}'? " if near else ""
                raise DipscopeError(
                    f"there is no column '{part}' to be the {name}",
                    where,
                    f"{hint}There are {', '.join(kinds)}.",
                )


def _closed(head: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether the first chat of a column ends in a turn of the assistant."""
    chat = next((row[column] for row in head if row.get(column)), None)
    try:
        return chat is not None and turns(chat, column)[-1]["role"] == "assistant"
    except BadRow:
        return False  # its row is reported when it is read


def _parts(column: str, kinds: Mapping[str, str]) -> list[str]:
    """The columns that an expression of a mapping reads."""
    if column in kinds:
        return [column]
    if "+" in column:
        return [p.strip() for p in column.split("+")]
    return [column.partition(".")[0]]


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    base, _, entry = column.partition(".")
    inner = row.get(base)
    return inner.get(entry) if entry and isinstance(inner, dict) else None


def _kind(values: Iterable[Any]) -> str:
    """The kind that most values of a column have; a value of another kind is reported with its row."""
    found = Counter(kind for kind in map(_kind_of, values) if kind != "nothing")
    return found.most_common(1)[0][0] if found else "nothing"


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "chat" if parsed_chat(value) is not None else "text"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, dict):
        return "struct"
    if isinstance(value, list):
        if not value:
            return "nothing"
        if is_chat(value):
            return "chat"
        return "texts" if all(isinstance(v, str) for v in value) else "other"
    return "other"
