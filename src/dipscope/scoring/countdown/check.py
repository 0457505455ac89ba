"""The checker: finds the answer of a response, reads it exactly, and judges it by the problem alone."""

from __future__ import annotations

from collections import Counter

from dipscope.scoring.base import MISSING, Judgement
from dipscope.scoring.countdown.grammar import LONGEST, read
from dipscope.scoring.countdown.problem import Problem
from dipscope.scoring.thinking import split

_BOX = "\\boxed{"
_AROUND = " \t\r\n`$"  # white space and marks around an expression


def verify(problem: Problem, response_text: str) -> Judgement:
    r"""Judge the last answer of a response, see `judge`.

    An answer is what follows the thinking as `Answer: EXPR` to the end of its line, `\boxed{EXPR}` or
    `<answer>EXPR</answer>`; the one that begins last counts. Missing when the thinking was not closed, or
    when no expression is found there.
    """
    return judge(problem, answer_of(split(response_text).answer))


def judge(problem: Problem, expression: str | None) -> Judgement:
    """Judge an expression: right when it uses the numbers as the problem says and its value is the target.

    Division is exact. An expression that divides by zero has no value, so it is wrong; text that is no
    expression, or that states a value which is not its own, is missing.

    Args:
        problem: says which numbers and operators may be used, and whether all numbers must be.
        expression: what was found as answer, such as `(5 - 2) * 9`; None: nothing was.
    """
    text = _bare((expression or "").strip(_AROUND))
    reading = read(text)
    if reading is None:
        return MISSING
    used, given = Counter(reading.used), Counter(problem.numbers)
    once = used <= given if problem.use == "some" else used == given
    allowed = reading.operators <= set(problem.operators)
    return Judgement.of(once and allowed and reading.value == problem.target, text)


def answer_of(text: str) -> str | None:
    """The last answer in the text after the thinking, without its mark; None when there is none."""
    found = max((_line(text), _boxed(text), _tagged(text)), key=lambda answer: answer[0])
    return found[1] if found[0] >= 0 else None


def _bare(text: str) -> str:
    """Without a full stop at the end and without the stars of bold type, which may enclose `Answer:` too."""
    text = text.removeprefix("**").removesuffix("**").rstrip(".").removesuffix("**")
    return text.strip(_AROUND)


def _line(text: str) -> tuple[int, str]:
    at = text.rfind("Answer:")
    return at, text[at + len("Answer:") :].partition("\n")[0]


def _boxed(text: str) -> tuple[int, str]:
    """The last box; a box that is not closed holds no expression."""
    at = text.rfind(_BOX)
    inside = text[at + len(_BOX) : at + len(_BOX) + LONGEST + 1]
    depth = 1
    for end, character in enumerate(inside):
        depth += (character == "{") - (character == "}")
        if not depth:
            return at, inside[:end]
    return at, ""


def _tagged(text: str) -> tuple[int, str]:
    at = text.rfind("<answer>")
    inside, closed, _ = text[at + len("<answer>") :].partition("</answer>")
    return (at, inside) if closed else (-1, "")
