"""The final answer of a response: the last box after the thinking, or what follows `Answer:`."""

from __future__ import annotations

import re

from dipscope.scoring.thinking import split

_BOX = r"\\{1,2}(?:boxed|fbox)(?![a-zA-Z])"
# A box (its brace belongs to it), an escaped character, which opens and closes nothing, or a brace.
_FIRST = re.compile(r"(?<!\\)\\++(?:boxed|fbox)(?![a-zA-Z])")
_TOKEN = re.compile(rf"(?P<box>{_BOX}[ \t\n]*+\{{)|(?P<bare>{_BOX})|\\.|[{{}}]", re.DOTALL)
_BARE = re.compile(r"[ \t]*+(?:([^$\n]{1,200})\$|([^\s${}]{1,200}))")
_GAP, _MANY = 40, 100  # characters at most between boxes that are one answer, and how many they are
_WITH = re.compile(
    r"(?:\s|\$|\\[()\[\],; ]|\\quad)*(?:,|;|\band\b|\bor\b|\\text\{\s*(?:and|or)\s*\})"
    r"(?:\s|\$|\\[()\[\],; ]|\\quad|and\b|or\b)*"
)
_MARKER = re.compile(r"(?:final answer is\b|answer\**[ \t]?:)[ \t:*]*", re.IGNORECASE)
_LINE = re.compile(r"\s*+([^\n]*)")
_HOPE = ". I hope"  # of the few-shot form "The final answer is X. I hope it is correct."


def final_answer(text: str, *, opened: bool = False) -> str | None:
    r"""What a response gives as its answer, never from inside the thinking.

    The last `\boxed{…}` or `\fbox{…}` (see `last_box`); without one, the line after the last `Answer:` or
    "final answer is". The time is linear in the length of the text.

    Args:
        text: the response.
        opened: the prompt ended inside a thinking block (see `thinking.split`).

    Returns:
        The answer without white space around it; None when there is none, as in unclosed thinking.
    """
    answer = split(text, opened=opened).answer
    return last_box(answer) or _after_marker(answer)


def last_box(text: str) -> str | None:
    r"""Content of the last box of a text whose braces balance and that is not empty.

    Of nested boxes it is the innermost. `\boxed 5` counts too: up to the end of the formula, else the next
    word. Boxes that only `,`, `and` or `or` separate from the last one belong to it: `\boxed{1}, \boxed{2}`
    is `1, 2`.
    """
    boxes = _boxes(text)
    if not boxes:
        return None
    boxes.sort()
    start, content = boxes[-1][0], [text[slice(*boxes[-1][1:3])].strip()]
    for before in reversed(boxes[-_MANY:-1]):
        between = text[before[3] : start] if before[3] + _GAP >= start >= before[3] else ""
        if not _WITH.fullmatch(between):
            break
        start, said = before[0], text[slice(*before[1:3])].strip()
        if said not in content:
            content.insert(0, said)
    return ", ".join(content)


def boxes(text: str) -> list[str]:
    """The content of every box of a text that is not empty, in their order; see `last_box`."""
    return [text[start:end].strip() for _, start, end, _ in sorted(_boxes(text))]


def _boxes(text: str) -> list[tuple[int, int, int, int]]:
    """Every box: where its command starts, its content starts and ends, and it ends itself."""
    # No command reaches over the end of a line, and `find` is much faster than the expression.
    at = text.find("box")
    if at < 0 or (first := _FIRST.search(text, text.rfind("\n", 0, at) + 1)) is None:
        return []
    found: list[tuple[int, int, int, int]] = []
    opened: list[tuple[int, int] | None] = []  # for each open brace the box that it belongs to
    for token in _TOKEN.finditer(text, first.start()):
        if token["box"] is not None:
            opened.append((token.start(), token.end()))
        elif token["bare"] is not None:
            if bare := _BARE.match(text, token.end()):
                found.append((token.start(), *bare.span(bare.lastindex or 0), bare.end()))
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened and (box := opened.pop()) is not None:
            found.append((*box, token.start(), token.end()))
    # Boxes may be nested and long: only their first characters are looked at, so that the time stays linear.
    return [box for box in found if box[1] < box[2] and text[box[1] : min(box[2], box[1] + 100)].strip()]


def _after_marker(text: str) -> str | None:
    ends = [marker.end() for marker in _MARKER.finditer(text)]
    if not ends:
        return None
    line = _LINE.match(text, ends[-1])
    said = (line[1] if line else "").partition(_HOPE)[0]
    return said.strip().strip("*`").strip().removesuffix(".").strip() or None
