"""Formulas compared by math-verify, without its alarms and with failures that show; unbounded in time."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

LONGEST, DEEPEST = 1_500, 60  # characters and nested brackets that the parser is given
CLOSE, EXACT = 1e-6, 1e-12  # relative difference of values: with a decimal in one of them, and without
_DIGITS = 30
# Where formulas with variables are evaluated, in the alphabetical order of the variables' names.
_POINTS = (
    (0.7316, 1.2841, 0.4153, 1.8627, 0.5529, 1.1173),
    (1.6094, 0.3217, 2.1739, 0.8461, 1.3958, 0.6642),
    (-0.8173, -1.3327, -0.4459, -1.7281, -0.5873, -1.1409),
    (0.5281, -1.4517, 0.9373, -0.3691, 1.8143, -0.7239),
)
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")


class Undecided(Exception):
    """No verdict can be reached; the text says why."""


def equal(gold: str, answer: str) -> bool:
    """Whether two cleaned formulas are equal, or two equations are equal up to scale.

    Raises:
        Undecided: one of them is too large or not understood, or the comparison failed.
    """
    wanted = _parsed(gold, "gold")
    try:
        said = _parsed(answer, "answer")
    except Undecided:
        if len(_WORDS.findall(answer)) >= 2 and "\\" not in answer:
            return False  # prose where a formula is wanted
        if not any(char.isalnum() for char in answer):
            return False  # nothing but signs
        raise
    try:
        decided = _by_value(wanted, said)
        return _math_verify(wanted, said) if decided is None else decided
    except (Undecided, RecursionError, MemoryError):
        raise
    except Exception as error:  # sympy raises what it likes
        raise Undecided(f"comparison failed: {type(error).__name__}") from None


@cache
def _config() -> Any:
    from latex2sympy2_extended import NormalizationConfig  # type: ignore[import-untyped]
    from math_verify import LatexExtractionConfig

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its alarms are off
    # Its list of units ends in single letters, so that 2h would equal 2; units are gone before.
    normal = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    return [LatexExtractionConfig(normalization_config=normal)]


def _parsed(text: str, whose: str) -> Any:
    from math_verify import parse

    if len(text) > LONGEST:
        raise Undecided(f"the {whose} is too long")
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise Undecided(f"the {whose} is nested too deep")
    try:
        found = parse(f"${text}$", _config(), parsing_timeout=None, raise_on_error=True)
    except Exception as error:
        raise Undecided(f"the {whose} is not understood: {type(error).__name__}") from None
    if not found or isinstance(found[0], str):
        raise Undecided(f"the {whose} is not understood")
    return found[0]


def _math_verify(gold: Any, answer: Any) -> bool:
    from math_verify import verify

    return bool(
        verify([gold], [answer], allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    )


def _by_value(gold: Any, answer: Any) -> bool | None:
    """Decide by values at fixed points; None where that cannot tell."""
    from sympy import Eq, Expr, Float  # type: ignore[import-untyped]

    if isinstance(gold, Eq) and isinstance(answer, Eq):
        values = _values(gold.lhs - gold.rhs, answer.lhs - answer.rhs)
        ratios = [said / wanted for wanted, said in values if abs(wanted) > EXACT and abs(said) > EXACT]
        scaled = len(ratios) == len(_POINTS) and all(_near(ratios[0], r, EXACT) for r in ratios)
        return True if scaled else None
    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return None
    close = CLOSE if gold.has(Float) or answer.has(Float) else EXACT
    values = _values(gold, answer)
    near = [_near(wanted, said, close) for wanted, said in values]
    if len(near) < len(_POINTS):
        return None
    if all(near):
        return True
    # Where all variables are positive no branch can differ; elsewhere simplification has to tell.
    return None if all(near[:2]) else False


def _values(one: Any, other: Any) -> list[tuple[complex, complex]]:
    """Values of two formulas at the points where both have one; none when their variables differ."""
    names = sorted(one.free_symbols, key=str)
    if set(names) != other.free_symbols or len(names) > len(_POINTS[0]):
        return []
    found = []
    for point in _POINTS:
        at = dict(zip(names, point, strict=False))
        pair = [complex(formula.evalf(_DIGITS, subs=at)) for formula in (one, other)]
        if all(abs(value) < 1e100 for value in pair):  # false for nan too
            found.append((pair[0], pair[1]))
    return found


def _near(one: complex, other: complex, close: float) -> bool:
    return abs(one - other) <= close * max(abs(one), abs(other)) or max(abs(one), abs(other)) < 1e-25
