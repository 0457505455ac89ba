"""Words of reflection in reasoning, and reasoning without them.

Traces of long reasoning turn back on themselves in a small set of words ("Wait", "Hmm", "Alternatively, ",
"Let me check ..."). Taking them out, and nothing else, asks whether a model learns from the words or from
what is done between them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dipscope.data.shaping.steps import mask


@dataclass(frozen=True)
class Keywords:
    """What counts as a word of reflection. Another list is another version.

    Attributes:
        version: goes into the provenance of what was made with it.
        interjections: taken out at the start of a sentence and where commas set them off inside one.
        openers: taken out at the start of a sentence.
        subjects: who announces a check.
        purposes: the same as the purpose of what follows after a comma.
        checkers: verbs that, after one of these, announce a check. What is announced stays (after `that`, a
            colon, or the comma after a purpose); a sentence that only announces goes.
    """

    version: str
    interjections: tuple[str, ...]
    openers: tuple[str, ...]
    subjects: tuple[str, ...]
    purposes: tuple[str, ...]
    checkers: tuple[str, ...]


KEYWORDS = Keywords(
    version="1",
    interjections=(
        "wait a minute", "wait a second", "wait a moment", "wait", "hmm+", "hm", "hold on", "hang on", "oh",
        "oops", "aha", "ah", "ugh", "whoa", "uh",
    ),
    openers=("alternatively", "actually", "on second thought", "on second thoughts", "come to think of it"),
    subjects=(
        "let me", "let's", "let us", "i should", "i need to", "i want to", "i have to", "i must", "i'll",
        "i will", "i can", "i'd better", "we should", "we need to", "we can", "we have to",
    ),
    purposes=("just to", "to"),
    checkers=(
        "double[- ]?check", "cross[- ]?check", "re-?check", "check", "re-?verify", "verify", "confirm",
        "make sure", "be sure", "be certain", "re-?examine", "re-?consider", "re-?think", "re-?visit",
        "re-?evaluate", "think again", "go back", "backtrack", "step back", "start over", "try again",
    ),
)  # fmt: skip

_BREAK = re.compile(r"[.!?…][\"')\]]*[ \t]+|\n\s*|:[ \t]+(?=[A-Z])")


def _any(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(words) + ")"


def _patterns(keywords: Keywords) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    # "Wait for the bus" and "wait times" are no reflection; nor is "check" in a formula.
    interjection = rf"{_any(keywords.interjections)}\b(?!['’]|\s+(?:for|until|till|times?|in)\b)"
    lead = r"(?:(?:but|so|and|no|oh|okay|ok|well|or)\b,?\s+)?"
    begun = r"(?:(?:but|so|and|now|okay|ok|first|then|yes|also|still|well|maybe|perhaps|anyway)\b,?\s+)?"
    hedge = r"(?:(?:just|also|quickly|now|really|at least|still)\s+)?"
    who = rf"(?:{_any(keywords.subjects)}|(?P<purpose>{_any(keywords.purposes)}))\s+"
    ends = r"(?:\s*[,;:—–-]+(?=\s|$)|[.!?…]+|(?=\s|$))\s*"
    turn = rf"\s{{0,3}}[,;—–]\s*(?:oh,?\s+|but\s+|no,?\s+)?{interjection}\s*"
    opening = re.compile(rf"{lead}(?:{interjection}|{_any(keywords.openers)}\b){ends}", re.IGNORECASE)
    check = re.compile(rf"{begun}{who}{hedge}{_any(keywords.checkers)}\b(?!\s*[-=+*/^<>])", re.IGNORECASE)
    aside = re.compile(rf"{turn}(?:(,)|(?=[.!?;—–]|$))", re.IGNORECASE)
    return opening, check, aside


_OPENING, _CHECK, _ASIDE = _patterns(KEYWORDS)
_CLAUSE = re.compile(r"\s*(?:that\s+|,\s*|[^:]*:\s*)(?=\S)", re.I)
_AFTER_PURPOSE = re.compile(r"[^,:]*[,:]\s*(?=\S)")
_LOWER = re.compile(r"[a-z][a-z']+(?=[ ,.:;!?]|$)|[ai](?= [a-z])")


def strip(reasoning: str) -> str:
    """Reasoning without the words in `KEYWORDS`; everything else stays as it is.

    Sentences that lose their beginning begin in upper case again; sentences of which nothing is left are
    dropped, and paragraphs stay apart. Code, math and tables are not touched.

    Args:
        reasoning: what stands inside a thinking block.
    """
    masked = mask(reasoning)
    ends = [m.end() for m in _BREAK.finditer(masked)]
    out: list[str] = []
    lost = False  # whether the sentence before it on the line is gone
    for start, end in zip([0, *ends], [*ends, len(masked)], strict=True):
        core_end = start + len(masked[start:end].rstrip())
        gap = reasoning[core_end:end]
        kept = _sentence(reasoning[start:core_end], masked[start:core_end])
        if kept or core_end == start:
            out += [_capital(kept) if lost else kept, gap]
            lost = lost and not kept
            continue
        lost = "\n" not in gap
        if out:
            before = out.pop()
            out.append(max(before, gap, key=lambda space: (space.count("\n"), len(space))))
    return "".join(out)


def _sentence(text: str, masked: str) -> str:
    """What is left of one sentence; empty when it said nothing else."""
    at = 0
    while match := _OPENING.match(masked, at):
        at = match.end()
    if match := _CHECK.match(masked, at):
        follows = (_AFTER_PURPOSE if match["purpose"] else _CLAUSE).match(masked, match.end())
        if not follows:
            return ""
        at = follows.end()
    spared, inside = [], at
    for aside in _ASIDE.finditer(masked, at):
        spared += [text[inside : aside.start()], aside[1] or ""]
        inside = aside.end()
    rest = "".join([*spared, text[inside:]])
    return _capital(rest) if at else rest


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if _LOWER.match(text) else text
