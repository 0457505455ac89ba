"""What a reply of an OpenAI-compatible chat endpoint says: a draft, or a trouble and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from dipscope.engine.base import Finish
from dipscope.engine.text import Ask, Draft
from dipscope.scoring.thinking import CLOSE, OPEN

_LATER = (408, 409, 425, 429)  # besides 5xx: the same request may succeed another time
_PROMPT = (400, 413, 422)  # this prompt is refused; another one may pass
_SHOWN = 200  # characters of a server's own words in a message


@dataclass(frozen=True)
class Trouble:
    """Why an attempt brought no draft.

    Attributes:
        kind: `throttled`: come back later, nothing is wrong; `unreachable`: nobody is there; `failed`: the
            server or the connection broke; `garbled`: the reply is no whole response; `refused`: this prompt
            will not be answered; `fatal`: no prompt will.
        reason: in a few words, for a person.
        status: of the reply, 0 where none came.
        after: seconds the server asks to wait.
        lost: the server may have written (and charged for) a response that did not arrive.
    """

    kind: Literal["throttled", "unreachable", "failed", "garbled", "refused", "fatal"]
    reason: str
    status: int = 0
    after: float | None = None
    lost: bool = False


def read(
    status: int, headers: Mapping[str, str], content: bytes, ask: Ask, *, opened: bool = False
) -> Draft | Trouble:
    """The draft in a reply, or what is wrong with the reply.

    Args:
        status: HTTP status.
        headers: of the reply, looked up in lower case.
        content: the body.
        ask: what was asked.
        opened: the server's template opens the thinking, so a text without the mark continues it.
    """
    if status != 200:
        return _trouble(status, headers, content)
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        # a plain completion has a text where a chat has a message
        message, reported = choice.get("message") or {"content": choice["text"]}, choice["finish_reason"]
        text = response_text(message, opened=opened)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Trouble("garbled", "the reply is not a chat completion", lost=True)
    if reported is None:
        return Trouble("garbled", "the reply has no finish_reason", lost=True)
    made, given = _count(reply, "completion_tokens"), _count(reply, "prompt_tokens")
    if reported not in ("stop", "length"):
        return Draft(ask.key, "", "error", made, given, f"the server ended with '{str(reported)[:40]}'")
    finish: Finish = "stop" if reported == "stop" else "length"
    return Draft(ask.key, text, finish, made, given)


def response_text(message: Mapping[str, Any], *, opened: bool = False) -> str:
    """The response in a chat message, with separately reported reasoning in front as a thinking block.

    The block is closed only when an answer follows: a server that reports reasoning alone has not shown
    that the thinking ended. vLLM names the field `reasoning` (earlier `reasoning_content`).

    Raises:
        KeyError: there is neither content nor reasoning.
        TypeError: one of them is not text.
    """
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    for part in (content, reasoning):
        if not isinstance(part, str | None):
            raise TypeError("content is text")
    if content is None and reasoning is None:
        raise KeyError("content")
    content = content or ""
    if reasoning:
        text = f"{OPEN}\n{reasoning.strip(chr(10))}"
        if content:
            text += f"\n{CLOSE}{'' if content.startswith(chr(10)) else chr(10)}{content}"
    elif opened and not content.lstrip().startswith(OPEN):
        text = f"{OPEN}\n{content}"
    else:
        text = content
    return storable(text)


def storable(text: str) -> str:
    """The text with lone surrogates, which no file format holds, replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait (RFC 9110, section 10.2.3): a number or a date; None without.

    A date is read against the reply's own `Date`, so that clocks need not agree.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (
                parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
            ).total_seconds()
        except (ValueError, TypeError):
            return None
    return seconds if 0 <= seconds < float("inf") else 0.0


def _trouble(status: int, headers: Mapping[str, str], content: bytes) -> Trouble:
    after = retry_after(headers)
    if status == 429 or (status == 503 and after is not None):
        return Trouble("throttled", f"the server asks to wait ({status})", status, after)
    if status in _LATER or status >= 500:
        # a gateway that gave up waiting says nothing of what stands behind it
        return Trouble("failed", f"the server failed ({status})", status, after, lost=status == 504)
    if status in _PROMPT:
        return Trouble("refused", f"the server refused the request ({status}{_words(content)})", status)
    return Trouble("fatal", f"the server answered {status}{_words(content)}", status)


def _words(content: bytes) -> str:
    """What the server says of its error, short and on one line."""
    try:
        value = json.loads(content)
        value = value.get("error", value)
        said = value.get("message", "") if isinstance(value, dict) else value
    except (ValueError, AttributeError, RecursionError):
        return ""
    line = storable(" ".join(str(said).split()))
    return f": {line[:_SHOWN]}" if line else ""


def _count(reply: Mapping[str, Any], name: str) -> int | None:
    usage = reply.get("usage")
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
