r"""Which option a response chooses: for the strict protocol, and as the paper's two scripts read it.

The strict reading looks, in this order, at

1. the last box that holds a letter, bare or in any usual dress (`(C)`, `\text{C}`, `**C**`, `Option C`,
   `C) foo`), or the text of one of the options;
2. the last phrase that names the answer ("the answer is C", "Answer: (C)", "the correct option is C"), with a
   letter or the text of an option;
3. a line that is nothing but a letter, with or without the text of its option: the last line, else the first.

Nothing is guessed: a letter somewhere in a sentence is no answer.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from dipscope.scoring.answers import boxes

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST = 2_000  # characters of a box or a line that are looked at
PHRASES, SENTENCE = 50, 400  # phrases from the end, and characters after each
BOXES = 50  # boxes from the end

# Possessive, so that white space is not shared out in every possible way.
_OPEN = (
    r"(?:[\s$*_`\"'“‘(\[{<]|\\[(\[]"
    r"|\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathsf|mathit|boldsymbol|bf|rm)(?![a-zA-Z])"
    r"|(?i:\b(?:option|choice|answer|letter)\b)[\s:*]*+)*+"
)
_CLOSE = r"(?:[\s$*_`\"'”’)\]}>.:,;!]|\\[)\]])*+"
_BARE = re.compile(rf"{_OPEN}([A-Za-z]){_CLOSE}")
# A letter, a mark that sets it apart, and more: `C) foo`, `\text{C}: foo`, `C - foo`.
_MORE = re.compile(rf"{_OPEN}([A-Z])(?:[\s$*_`\"'”’]*+[).:\]}}]|\s+[-–—]){_CLOSE}(\S.*)", re.DOTALL)
_NOT = r"(?:(?!\b(?:not|cannot|never|neither)\b|n['’]t\b)[^.\n:=])"
_IS = r"\b(?:is|be|was)\b"
_PHRASE = re.compile(
    rf"(?:\b(?:answer|option|choice)s?\b(?:{_NOT}{{0,60}}?{_IS})?[\s*_]*[:=]"
    rf"|\b(?:answer|option|choice|closest|nearest)\b{_NOT}{{0,60}}?{_IS}"
    r"|\b(?:choose|select|pick|correspond(?:s|ing) to|match(?:es|ing))\b)[\s:*_]*",
    re.IGNORECASE,
)
_CORRECT = re.compile(r"\b([A-Z])[)*]{0,3}\s{1,3}is\s{1,3}(?:the\s{1,3})?(?:correct|right|best|answer)\b")
# What may follow the letter of a phrase. `A` and `I` are words too: for them the sentence must end or turn.
_ENDS = re.compile(r"[\s*_`\"'”’)\]}$]*+(?:[.,;:!?)\]}-]|\Z|[–—]|\b(?:because|since|as|with|for|which|is)\b)")
_OR = re.compile(r"[\s*_`)\]}$]*+(?:,|/|\bor\b|\band\b)\s*(?:[Oo]ption\s*)?[(\[*]*[A-Z](?![a-zA-Z])")
_AFTER = re.compile(rf"{_OPEN}([A-Z])(?![a-zA-Z\d'’^_+/(]|\s*=|-\w)")


def strict(text: str, options: Sequence[str]) -> str | None:
    """Read the answer that follows the thinking.

    Args:
        text: what follows the thinking; it is never looked at inside.
        options: the texts of the options, in the order of their letters.

    Returns:
        The letter, or None where no option is named.
    """
    letters = LETTERS[: len(options)]
    said = _texts(letters, options)
    for content in boxes(text)[: -BOXES - 1 : -1]:
        if letter := _meant(content[:LONGEST], letters, said, small=True):
            return letter
    return _phrased(text, letters, said) or _alone(text, letters, said)


def _texts(letters: str, options: Sequence[str]) -> dict[str, str]:
    """The letter of each option's text, where no other option has the same."""
    plain = [_plain(option) for option in options]
    return {
        said: letter for said, letter in zip(plain, letters, strict=True) if said and plain.count(said) == 1
    }


def _meant(content: str, letters: str, said: dict[str, str], *, small: bool = False) -> str | None:
    """The option that a text names, if it does nothing else; a small letter counts only with `small`."""
    bare = _BARE.fullmatch(content)
    letter = bare[1].upper() if bare and small else bare[1] if bare else ""
    if letter and letter in letters:
        return letter
    if text := said.get(_plain(content)):
        return text
    more = _MORE.fullmatch(content)
    return more[1] if more and more[1] in letters and not _OR.match(content, more.end(1)) else None


def _phrased(text: str, letters: str, said: dict[str, str]) -> str | None:
    """What the last phrase says that names an answer."""
    correct = deque(((m.start(), m[1]) for m in _CORRECT.finditer(text) if m[1] in letters), 1)
    for phrase in reversed(deque(_PHRASE.finditer(text), PHRASES)):
        if correct and correct[0][0] >= phrase.start():
            break
        if letter := _named(text[phrase.end() : phrase.end() + SENTENCE], letters, said):
            return letter
    return correct[0][1] if correct else None


def _named(rest: str, letters: str, said: dict[str, str]) -> str | None:
    """The option that stands right after a phrase."""
    line = rest.partition("\n")[0]
    for whole in (line, line.partition(". ")[0]):
        if letter := _meant(whole, letters, said):
            return letter
    found = _AFTER.match(rest)
    if not found or found[1] not in letters or _OR.match(rest, found.end()):
        return None
    dressed = found[0].strip() != found[1]
    return found[1] if dressed or found[1] not in "AI" or _ENDS.match(rest, found.end()) else None


def _alone(text: str, letters: str, said: dict[str, str]) -> str | None:
    """The letter that the last or the first line is."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (lines[-1][:LONGEST], lines[0][:LONGEST]) if lines else ():
        bare = _BARE.fullmatch(line)
        if bare and bare[1] in letters:
            return bare[1]
        more = _MORE.fullmatch(line)
        if more and more[1] in letters and said.get(_plain(more[2])) == more[1]:
            return more[1]
    return None


def _plain(text: str) -> str:
    """A text as it is compared: without marks around it, case and white space."""
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"[\s$*`\"'“”‘’]+", "", text).strip(".,;:").lower()


# As the paper's scripts read an answer, thinking included (reference code of arXiv 2604.06628). A response in
# which they find nothing is wrong there; here its verdict is `missing`, whose score is 0 as well.

_ANY_CASE = re.IGNORECASE
_GPQA = (
    re.compile(r"answer\s*(?:is|:)\s*([a-d])", _ANY_CASE),
    re.compile(r"(?:choose|pick|select)\s*(?:option)?\s*([a-d])", _ANY_CASE),
    re.compile(r"(?:choice|option)\s*([a-d])\s*is (?:right|correct)", _ANY_CASE),
    re.compile(r"\b([a-d])\s*is (?:right|correct|the answer)", _ANY_CASE),
)
_MMLU_PRO = re.compile(r"answer is \(?([A-J])\)?|\\boxed\{(?:\\text\{)?([A-Z])\}?\}")


def paper_gpqa(text: str) -> str | None:
    """The content of the last box must be one letter, A to D; a phrase counts in the box, or without a box.

    The phrases are tried in a fixed order, each at its first place in the whole output, in any case and
    without a word's end after the letter: "the answer is about 5" reads as A.
    """
    box = _last_balanced(text)
    said = text if box is None else box
    for pattern in _GPQA:
        if found := pattern.search(said):
            return found[1].upper()
    said = said.rstrip(".").rstrip("/").strip()
    return said.upper() if len(said) == 1 and said.upper() in "ABCD" else None


def paper_mmlu_pro(text: str) -> str | None:
    """The first "answer is X" or boxed letter of the whole output."""
    found = _MMLU_PRO.search(text)
    return None if found is None else found[1] or found[2]


def _last_balanced(text: str) -> str | None:
    r"""Content of the last `\boxed{…}`; None where its braces do not balance, or there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    first = start + len("\\boxed{")
    depth = 1
    for at in range(first, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[first:at]
    return None
