"""Reasoning as steps: the one segmentation behind shuffling, dropping, shortening and the study of patterns.

A step is what a reader would move as one piece: a paragraph with the formulas it introduces, a line where
the text has no paragraphs, a turn of thought ("Wait, ...") inside a long paragraph. Code, displayed and
inline math, and tables are never cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONG = 400  # characters from which a paragraph is cut at line ends and turns of thought
SHORT = 80  # no cut inside a paragraph leaves less than this before it
LIMIT = 1200  # no step is longer, unless a block or a single word is
WINDOW = 20_000  # an opening mark without its closing mark in this many characters protects nothing

BLOCK, INLINE = "\ue000", "\ue001"  # what `mask` puts for a displayed and for an inline character

_PROTECTED = re.compile(
    r"(?P<table>^[ \t]*\|.*(?:\n[ \t]*\|.*)+)|(?P<open>```|~~~|\$\$|\\\[|\[asy\]|\\\(|\$)"
    r"|\\begin\{(?P<environment>[A-Za-z]{1,30}\*?)\}|\\.",
    re.MULTILINE,
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([A-Za-z]{1,30}\*?)\}")
_CLOSING = {"```": "```", "~~~": "~~~", "$$": "$$", "\\[": "\\]", "[asy]": "[/asy]", "\\(": "\\)", "$": "$"}
_PARAGRAPH = re.compile(r"\n\s*\n")
_LINE = re.compile(r"\n(?=[^\n]*\S)")
_TURNS = (
    r"Wait|Hmm+|But\b|However|Alternatively|Actually|Hold on|Oh\b|Let me|Let's|Let us|Another|Maybe|Perhaps|"
    r"Okay|OK\b|Now\b|First\b|Second\b|Third\b|Next\b|Then\b|So\b|Therefore|Thus|Hence|Finally|Similarly|"
    r"In conclusion|To verify|To check|Step \d|Case \d|Try\b"
)
_TURN = re.compile(rf"\n(?=[^\n]*\S)|(?<=[.!?:…])[ \t]+(?=(?:{_TURNS}))")
_SENTENCE = re.compile(r"[.!?…][\"')\]]*\s+|\n\s*")
_CLAUSE = re.compile(r"[,;:]\s+")
_SPACE = re.compile(r"\s+")
_ITEM = re.compile(r"(?:[-*•+]|\d{1,3}[.)]|\(?[a-zA-Z][.)]|#{1,6})[ \t]")
_HEADING = re.compile(r"#{1,6} [^\n]*|\*\*[^*\n]+\*\*:?")
_WORD = re.compile(r"[^\W\d_]{3,}")
_MATH = re.compile(rf"[=<>≤≥≈{BLOCK}{INLINE}]|[-–]{{3}}")


def segment(reasoning: str) -> list[str]:
    """Cut reasoning into steps whose concatenation is the reasoning, character by character.

    Paragraphs (between blank lines) are steps. A paragraph goes with the one before it where that one
    introduces it (ends in a colon or comma, or is a heading), and where it is a formula, indented, or
    begins in lower case. A text without blank lines has one step a line. Inside a paragraph of more than
    `LONG` characters each line, and each sentence that begins with a turn of thought, begins a step. What is
    then still above `LIMIT` is cut at sentence ends, or else at commas or spaces.

    Args:
        reasoning: what stands inside a thinking block; any text will do.

    Returns:
        Steps with the white space after them; the first also has what is before it. Empty for no text.
    """
    if not reasoning:
        return []
    masked = mask(reasoning)
    begin = len(masked) - len(masked.lstrip())
    end = len(masked.rstrip())
    paragraphs = [m.end() - _indent(m.group()) for m in _PARAGRAPH.finditer(masked, begin, end)]
    starts = paragraphs or [m.end() for m in _LINE.finditer(masked, begin, end)]
    steps = [0]  # where each step begins
    for first, last in _pairs([0, *starts], len(masked)):
        whole, *inner = _divided(masked, first, last)
        piece = masked[whole : inner[0] if inner else last]
        joins = paragraphs and first and last - steps[-1] <= LIMIT
        if first and not (joins and _continues(masked[steps[-1] : first], piece)):
            steps.append(first)
        steps += inner
    return [reasoning[a:b] for a, b in _pairs(steps, len(reasoning))]


def mask(text: str) -> str:
    """The text with code, math and tables blotted out, character for character.

    What is cut or searched by `mask` is cut or searched outside them: the fillers `BLOCK` (displayed) and
    `INLINE` hold no white space, word or punctuation. A mark that is never closed protects nothing.

    Args:
        text: any text.

    Returns:
        A text of the same length. Takes linear time on any input, within `WINDOW`.
    """
    kept, at, copied = [], 0, 0
    open_until: dict[str, int] = {}
    environments = _environments(text)
    while match := _PROTECTED.search(text, at):
        if match["environment"]:
            stop = environments.get(match.start(), 0)
            stop = stop if stop <= match.end() + WINDOW else 0
        else:
            stop = _closed(text, match, open_until)
        at = stop or match.end()
        if stop:
            filler = INLINE if match["open"] in ("$", "\\(") else BLOCK
            kept += [text[copied : match.start()], filler * (stop - match.start())]
            copied = stop
    return "".join([*kept, text[copied:]])


def _closed(text: str, match: re.Match[str], open_until: dict[str, int]) -> int:
    """Where the protected span that `match` opens ends; 0 when it opens none.

    `open_until` remembers for each closing mark up to where none was found: no text is searched twice.
    """
    if match["table"]:
        return match.end()
    if not match["open"]:  # an escaped character
        return 0
    limit = match.end() + WINDOW
    closing = _CLOSING[match["open"]]
    found = text.find(closing, max(match.end(), open_until.get(closing, 0)), limit)
    while found > 0 and closing == "$" and text[found - 1] == "\\":
        found = text.find(closing, found + 1, limit)
    inline = match["open"] in ("$", "\\(")
    if found < 0:
        open_until[closing] = limit - len(closing)
    if found < 0 or (inline and _PARAGRAPH.search(text, match.end(), found)):
        return 0
    return found + len(closing)


def _environments(text: str) -> dict[int, int]:
    """Where each LaTeX environment that is closed begins and ends."""
    ends: dict[int, int] = {}
    begun: dict[str, list[int]] = {}
    for mark in _ENVIRONMENT.finditer(text):
        starts = begun.setdefault(mark[2], [])
        if mark[1] == "begin":
            starts.append(mark.start())
        elif starts:
            ends[starts.pop()] = mark.end()
    return ends


def _divided(masked: str, first: int, last: int) -> list[int]:
    """Where the steps of one paragraph begin, itself first."""
    cuts = [first]
    if last - first > LONG:
        for match in _TURN.finditer(masked, first, last):
            if match.end() - cuts[-1] >= SHORT and masked[cuts[-1] : match.end()].strip():
                cuts.append(match.end())
    return [cut for a, b in _pairs(cuts, last) for cut in _bounded(masked, a, b)]


def _bounded(masked: str, first: int, last: int) -> Iterator[int]:
    """Cuts that keep a piece within the limit, at the best place that there is before it."""
    yield first
    while len(masked[first:last].rstrip()) > LIMIT:
        ends = (
            max((m.end() for m in place.finditer(masked, first + SHORT, first + LIMIT)), default=0)
            for place in (_SENTENCE, _CLAUSE, _SPACE)
        )
        cut = next(filter(None, ends), 0)
        if not cut:
            beyond = _SPACE.search(masked, first + LIMIT, last)
            cut = beyond.end() if beyond else last
        if not masked[cut:last].strip():
            return
        yield cut
        first = cut


def _continues(before: str, piece: str) -> bool:
    """Whether a paragraph belongs to the step before it."""
    before = before.strip()
    if before.endswith((":", ",")) or _HEADING.fullmatch(before):
        return True
    if piece.startswith(("  ", "\t")):
        return True
    piece = piece.strip()
    if _ITEM.match(piece):
        return False
    return piece[:1].islower() or (bool(_MATH.search(piece)) and len(_WORD.findall(piece)) < 2)


def _indent(gap: str) -> int:
    """White space after the last line end of a gap: it belongs to the paragraph that follows."""
    return len(gap) - gap.rfind("\n") - 1


def _pairs(starts: list[int], end: int) -> Iterator[tuple[int, int]]:
    return zip(starts, [*starts[1:], end], strict=True)
