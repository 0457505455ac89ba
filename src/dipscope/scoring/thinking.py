"""The one place that splits a response into reasoning and answer."""

from __future__ import annotations

from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"
# Opening and closing mark of each family, ours first; then SkyThought's, whose answer has marks of its own.
MARKS = ((OPEN, CLOSE), ("<|begin_of_thought|>", "<|end_of_thought|>"))
_AROUND_ANSWER = ("<|begin_of_solution|>", "<|end_of_solution|>")


@dataclass(frozen=True)
class Response:
    """A response after the split.

    Attributes:
        text: the whole response, verbatim.
        reasoning: what stands inside the thinking block, verbatim; empty when there is none.
        answer: what follows the block, verbatim apart from the newlines next to the closing mark and from
            marks around the answer; the whole text when nothing was opened; empty when a block was opened
            and never closed.
        closed: True unless a thinking block was opened and not closed.
    """

    text: str
    reasoning: str
    answer: str
    closed: bool


def split(text: str, *, opened: bool = False) -> Response:
    """Split `text` at the last closing mark.

    A closing mark without an opening one counts as closing a block that the prompt had opened. Unclosed
    thinking has no answer: a truncated trace is not an answer in the strict protocol.

    Args:
        text: the response.
        opened: the prompt ended inside a thinking block, so a text without any mark is unclosed thinking.
    """
    for start, end in MARKS:
        if end in text:
            reasoning, _, answer = text.rpartition(end)
            return Response(text, _without_opening(reasoning, start), _unwrapped(answer), True)
        if start in text:
            return Response(text, text.partition(start)[2], "", False)
    if opened:
        return Response(text, text, "", False)
    return Response(text, "", text, True)


def _without_opening(reasoning: str, start: str) -> str:
    lead = reasoning.lstrip()
    return lead.removeprefix(start) if lead.startswith(start) else reasoning


def _unwrapped(answer: str) -> str:
    before, after = _AROUND_ANSWER
    if before in answer:
        answer = answer.partition(before)[2].partition(after)[0]
    return answer.strip("\n")
