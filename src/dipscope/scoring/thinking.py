"""The one place that splits a response into reasoning and answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"
_OPEN_AT_START = re.compile(rf"^\s*{re.escape(OPEN)}")


@dataclass(frozen=True)
class Response:
    """A response after the split.

    Attributes:
        text: the whole response, verbatim.
        reasoning: what stands inside the thinking block, verbatim; empty when there is none.
        answer: what follows the block, verbatim apart from the newlines next to the closing tag; the whole
            text when nothing was opened; empty when a block was opened and never closed.
        closed: True unless a thinking block was opened and not closed.
    """

    text: str
    reasoning: str
    answer: str
    closed: bool


def split(text: str) -> Response:
    """Split `text` at the last closing tag.

    A closing tag without an opening one counts as closing a block that the prompt had opened. Unclosed
    thinking has no answer: a truncated trace is not an answer in the strict protocol.
    """
    if CLOSE in text:
        reasoning, _, answer = text.rpartition(CLOSE)
        return Response(text, _OPEN_AT_START.sub("", reasoning, count=1), answer.strip("\n"), True)
    if OPEN in text:
        return Response(text, text.partition(OPEN)[2], "", False)
    return Response(text, "", text, True)
