"""Wrong answers that look like right ones: the final answer of a response replaced by a near miss."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from itertools import islice

from dipscope.data import countdown
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import Judgement

Judge = Callable[[str, str], Judgement]

TRIES = 12  # candidates that are shown to the judge, at most
_NUMBER = re.compile(
    r"(?<![\w.])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])"  # 10,080
    r"|(?<![\w.])\d{1,30}(?:\.\d{1,30})?|(?<=[A-Za-z_^}{])\d{1,30}"
)
_LETTER = re.compile(r"(\(?(?:\\(?:text|textbf|mathrm)\{)?\(?)([A-J])(\)?\}?\)?)")
_OPTION = re.compile(r"(?:^|[\s(\[{*])([A-J])(?:[.):\]]|\}|\*\*)")
_OPPOSITES = {
    "yes": "no",
    "true": "false",
    "even": "odd",
    "increasing": "decreasing",
    "convergent": "divergent",
}
_OPPOSITES |= {other: word for word, other in _OPPOSITES.items()}
_WORDS = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
_BOX = r"\\+(?:boxed|fbox)[ \t\n]*\{\s*"


def first(gold: str, answer: str, prompt: str, rng: random.Random) -> Iterator[str]:
    """The first `TRIES` of `candidates`."""
    return islice(candidates(gold, answer, prompt, rng), TRIES)


def candidates(gold: str, answer: str, prompt: str, rng: random.Random) -> Iterator[str]:
    """Answers near the given one, in an order drawn by `rng`; not checked, and perhaps none.

    A letter becomes another of the prompt's options. One number in the answer is changed by a little, in its
    last digits where it is long. A word becomes its opposite where it has one. A formula without numbers is
    raised by 1. For a Countdown gold, an expression that uses all numbers and misses the target.

    Args:
        gold: the gold answer.
        answer: the final answer as the response has it.
        prompt: the question, for its options.
        rng: draws.
    """
    try:
        problem = countdown.Problem.from_gold(gold)
    except (ValueError, TypeError, KeyError):
        pass
    else:
        misses = countdown.near_misses(problem.numbers, problem.target, TRIES, rng)
        yield from (expression for _, expression in misses)
        return
    if letter := _LETTER.fullmatch(answer):
        shown = sorted(set(_OPTION.findall(prompt)))
        others = [o for o in (shown if len(shown) > 1 else "ABCD") if o != letter[2]]
        yield from (letter[1] + o + letter[3] for o in rng.sample(others, len(others)))
    elif numbers := list(_NUMBER.finditer(answer)):
        changes = [(n, value) for n in numbers for value in _near(n.group())]
        for number, value in rng.sample(changes, len(changes)):
            yield answer[: number.start()] + value + answer[number.end() :]
    elif words := [w for w in _WORDS.finditer(answer) if w.group().lower() in _OPPOSITES]:
        word = words[-1]
        other = _OPPOSITES[word.group().lower()]
        other = other.capitalize() if word.group()[0].isupper() else other
        yield answer[: word.start()] + other + answer[word.end() :]
    elif not _WORDS.search(answer):
        yield f"{answer} + 1"


def _near(number: str) -> list[str]:
    """Numerals close to one of digits, with the same separators, above 0."""
    value, width = int(re.sub(r"\D", "", number)), sum(map(str.isdigit, number))
    near = [value + change for change in (-3, -2, -1, 1, 2, 3, 10)]
    return [_numeral(v, width, number) for v in near if v > 0]


def _numeral(value: int, width: int, like: str) -> str:
    text = str(value).zfill(width)
    if "," in like:
        return f"{value:,}"
    decimals = len(like.partition(".")[2])
    return text if "." not in like else f"{text[:-decimals]}.{text[-decimals:]}"


def replaced(response: str, old: str, new: str, after: int) -> str:
    r"""The response with another final answer; empty where that cannot be done.

    Every `\boxed{old}` after the thinking becomes `\boxed{new}`; without one, what follows the last
    `Answer:`. Other mentions of the old answer stay.

    Args:
        response: the whole response.
        old: its final answer.
        new: what takes its place.
        after: where the thinking ends; nothing before this position is changed.
    """
    head, tail = response[:after], response[after:]
    changed = re.sub(rf"({_BOX}){re.escape(old)}(?=\s*\}})", lambda m: m[1] + new, tail)
    if changed == tail and (at := tail.rfind(old)) >= 0:
        changed = tail[:at] + new + tail[at + len(old) :]
    return head + changed if final_answer(head + changed) == new else ""
