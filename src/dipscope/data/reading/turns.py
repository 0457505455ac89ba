"""Values of foreign tables in canonical form: chat lists, gold answers, finish reasons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dipscope.scoring.thinking import CLOSE, OPEN

Turn = dict[str, str]

_ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "observation": "tool", "function": "tool", "ipython": "tool",
}  # fmt: skip
_FINISHES = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop",
    "length": "length", "max_tokens": "length", "max_length": "length",
}  # fmt: skip


class BadRow(ValueError):
    """A row that cannot be read, with the reason as a short clause; whoever knows the place adds it."""


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages with role and content, or from and value."""
    return isinstance(value, list) and bool(value) and all(_said(m) is not None for m in value)


def parsed_chat(text: str) -> list[dict[str, Any]] | None:
    """The messages of a chat that is stored as JSON text; None when the text is something else."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if is_chat(value) else None


def turns(value: Any, column: str) -> list[Turn]:
    """Messages with the roles system, user, assistant and tool.

    Reasoning that stands beside a message's content goes in front of it, as a thinking block.

    Raises:
        BadRow: the value is no chat, a role is unknown, or a content is no text.
    """
    messages = parsed_chat(value) if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"{column} is {describe_type(value)}, not a list of messages")
    result = []
    for message in messages:
        said = _said(message)
        if said is None:
            raise BadRow(f"{column} has a message without role and content")
        role = _ROLES.get(said[0].casefold())
        if role is None:
            raise BadRow(f"{column} has a message of the unknown role '{said[0]}'")
        content = said[1] if isinstance(said[1], str) else _joined(said[1], column)
        if len(message) > 2:
            content = _reasoning(message) + content
        result.append({"role": role, "content": content})
    return result


def context_text(before: Sequence[Turn]) -> str:
    """Turns as `Trace.context` holds them: a JSON list, empty text when there are none."""
    return json.dumps(list(before), ensure_ascii=False) if before else ""


def gold_text(value: Any) -> str:
    """A gold answer as `Trace.gold` holds it.

    Text stays as it is and numbers become text; a Countdown problem, given as a mapping or as JSON text,
    becomes `{"numbers": [...], "target": n}`; a list of one is its element, several are joined by commas.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        countdown = _countdown_text(value)
        return value if countdown is None else countdown
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict):
        countdown = _countdown(value)
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if countdown is None else countdown
    if isinstance(value, list):
        return ", ".join(gold_text(v) for v in value)
    return str(value)


def finish_text(value: Any) -> str:
    """A finish reason as `Trace.finish` holds it: `stop` or `length`; other reasons stay as they are."""
    if value is None:
        return ""
    reason = str(value).strip().casefold()
    return _FINISHES.get(reason, reason)


def describe_type(value: Any) -> str:
    """What a value is, in words a reader of JSON knows."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "binary"


def _said(message: Any) -> tuple[str, Any] | None:
    """Who spoke and what, in either way of keeping it."""
    if not isinstance(message, dict):
        return None
    if isinstance(role := message.get("role"), str) and "content" in message:
        return role, message["content"]
    if isinstance(role := message.get("from"), str) and "value" in message:
        return role, message["value"]
    return None


def _joined(content: Any, column: str) -> str:
    """The text of a content that comes in parts, as multimodal chats keep it."""
    if isinstance(content, list) and content:
        parts = [p.get("text") if isinstance(p, dict) else None for p in content]
        if all(isinstance(p, str) for p in parts):
            return "".join(map(str, parts))
    raise BadRow(f"{column} has a message whose content is {describe_type(content)}, not text")


def _reasoning(message: dict[str, Any]) -> str:
    for key in ("reasoning_content", "reasoning", "thinking"):
        text = message.get(key)
        if isinstance(text, str) and text.strip():
            return f"{OPEN}\n{text.strip()}\n{CLOSE}\n\n"
    return ""


def _countdown_text(text: str) -> str | None:
    if not text.lstrip().startswith("{"):
        return None  # sets in LaTeX start with a backslash; what starts with a brace may be JSON
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _countdown(value) if isinstance(value, dict) else None


def _countdown(value: dict[str, Any]) -> str | None:
    numbers, target = value.get("numbers"), value.get("target")
    if not isinstance(numbers, list) or not all(isinstance(n, (int, float)) for n in (*numbers, target)):
        return None
    rules = {k: value[k] for k in ("operators", "use") if k in value}  # of our own problems
    return json.dumps({"numbers": [_whole(n) for n in numbers], "target": _whole(target), **rules})


def _whole(number: Any) -> int | float:
    plain: int | float = int(number) if isinstance(number, float) and number.is_integer() else number
    return plain
