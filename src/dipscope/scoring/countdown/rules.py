"""The rules that countdown problems are solved by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Number = int | Fraction
Span = tuple[int, int]

LIMIT = 99  # inner results stay at or below it where all numbers and targets do
OPERATORS = "+-*/"
MANY = 10**9  # the upper end of an open range such as "5-"
_SPAN = re.compile(r"\s*(\d{1,9})\s*(?:([-–])\s*(\d{1,9})?)?\s*")


@dataclass(frozen=True)
class Rule:
    """What an expression may do.

    Attributes:
        operators: those of `+-*/` that may be used.
        whole: every quotient must be whole; otherwise division is exact, over the rationals.
        limit: inner results, all but the last one, lie above 0, and their numerators and denominators at or
            below this; None allows any.
        some: a subset of the numbers will do; otherwise each must be used.
    """

    operators: str = "+-*"
    whole: bool = True
    limit: int | None = LIMIT
    some: bool = False

    def inner(self, value: Number) -> bool:
        """Whether a step may have this result and go on from it."""
        return self.limit is None or (value > 0 and self.named(value))

    def named(self, value: Number) -> bool:
        """Whether a trace names this result."""
        return self.limit is None or (value.numerator <= self.limit and value.denominator <= self.limit)


STANDARD = Rule()  # that of the embedded world


def apart(a: Number, b: Number) -> Number:
    """How far two values lie apart."""
    return a - b if a >= b else b - a


def limit_for(largest: int) -> int:
    """Largest inner result where nothing else is said: 99, 9999, 999999: the first that `largest` fits in."""
    limit = LIMIT
    while limit < largest:
        limit = limit * 100 + 99
    return limit


def span(value: Any) -> Span:
    """A range from `4`, `"4"`, `"3-5"` or `"3-"` (open above), both ends included.

    Raises:
        ValueError: it is none of these, or it is empty.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(value)
    low, dash, high = found.groups()
    made = int(low), int(high) if high else MANY if dash else int(low)
    if made[0] > made[1]:
        raise ValueError(value)
    return made
