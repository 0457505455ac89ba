r"""The grammar of an answer, read without recursion and without the interpreter.

    answer     = expression [ "=" number ]      the number must be the value
    expression = operand ( operator operand )*
    operand    = number | "(" expression ")" | "\frac{" expression "}{" expression "}"
    operator   = "+" | "-" | "*" | "/"          with the signs and LaTeX commands that mean the same

Products come before sums, equal ones from the left. There are no signed numbers: every `-` subtracts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from dipscope.scoring.countdown.rules import Number

LONGEST, MOST_TOKENS, MOST_DIGITS = 1_000, 100, 9
_TOKEN = re.compile(r"\s*(\\[a-z]+|\\[,;:! ()\[\]]|[0-9]+|.|$)", re.DOTALL)
_ALIKE = {
    "+": "+",
    "-": "-−–",
    "*": ["*", "×", "·", "⋅", "∗", r"\times", r"\cdot"],
    "/": ["/", "÷", "∕", r"\div"],
}
_IGNORED = ["$", r"\left", r"\right", r"\,", r"\;", r"\:", r"\!", r"\(", r"\)", r"\[", r"\]", "\\ "]
_MEANING = {
    **{written: sign for sign, ways in _ALIKE.items() for written in ways},
    **{mark: mark for mark in "()={}"},
    **dict.fromkeys([r"\frac", r"\dfrac", r"\tfrac"], "frac"),
    **dict.fromkeys(_IGNORED, ""),
}
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class Reading:
    """An expression that was read.

    Attributes:
        value: exact; None where a divisor is zero.
        used: its numbers in their order.
        operators: the operators that it holds.
    """

    value: Number | None
    used: tuple[int, ...]
    operators: frozenset[str]


def read(text: str) -> Reading | None:
    """Read an expression; None when the text is not one, or is longer than any answer.

    At most 1,000 characters, 100 tokens and 9 digits a number are read.
    """
    if len(text) > LONGEST:
        return None
    try:
        return _read(list(_plain(list(_tokens(text)))))
    except ValueError:
        return None


def evaluate(text: str, operators: str = "+-*") -> tuple[Number, list[int]] | None:
    """Value of an expression and the numbers in it.

    None when it is not one, has no value, or holds an operator that is not among `operators`.
    """
    reading = read(text)
    if reading is None or reading.value is None or not reading.operators <= set(operators):
        return None
    return reading.value, list(reading.used)


def _tokens(text: str) -> Iterator[str]:
    """Numbers, and the meaning of everything else."""
    for found in _TOKEN.finditer(text.strip()):
        token = found[1]
        if not token:
            return
        if token[0] in "0123456789":
            if len(token) > MOST_DIGITS:
                raise ValueError(token)
            yield token
        elif token not in _MEANING:
            raise ValueError(token)
        elif _MEANING[token]:
            yield _MEANING[token]


def _plain(tokens: list[str]) -> Iterator[str]:
    """Fractions as quotients and braces as parentheses: `frac { a } { b }` becomes `( ( a ) / ( b ) )`."""
    if len(tokens) > MOST_TOKENS:
        raise ValueError("too long")
    open_: list[str] = []  # what each open brace is: "upper" or "lower" part of a fraction, or a "group"
    kind = "group"
    for token in tokens:
        if kind != "group" and token != "{":
            raise ValueError(token)
        if token == "frac":
            kind = "upper"
            yield "("
        elif token == "{":
            open_.append(kind)
            kind = "group"
            yield "("
        elif token == "}":
            if not open_:
                raise ValueError(token)
            closed = open_.pop()
            yield ")"
            if closed == "upper":
                kind = "lower"
                yield "/"
            elif closed == "lower":
                yield ")"
        else:
            yield token
    if open_ or kind != "group":
        raise ValueError("a brace or a part of a fraction is missing")


def _read(tokens: list[str]) -> Reading | None:
    """Two stacks: values, and operators and parentheses that wait."""
    stated = None
    if len(tokens) > 2 and tokens[-2] == "=" and tokens[-1].isdigit():
        tokens, stated = tokens[:-2], int(tokens[-1])
    values: list[Number | None] = []
    waiting: list[str] = []
    used: list[int] = []
    operand_next = True
    for token in [*tokens, "end"]:
        if operand_next:
            if token == "(":
                waiting.append(token)
            elif token.isdigit():
                used.append(int(token))
                values.append(used[-1])
                operand_next = False
            else:
                return None
            continue
        binds = _BINDS.get(token, 0)
        while waiting and _BINDS.get(waiting[-1], -1) >= max(binds, 1):
            right, left = values.pop(), values.pop()
            values.append(_apply(waiting.pop(), left, right))
        if token in _BINDS:
            waiting.append(token)
            operand_next = True
        elif token == ")":
            if not waiting:
                return None
            waiting.pop()
        elif token != "end" or waiting:
            return None
    (value,) = values
    if stated is not None and value != stated:
        return None
    return Reading(value, tuple(used), frozenset(t for t in tokens if t in _BINDS))


def _apply(sign: str, left: Number | None, right: Number | None) -> Number | None:
    """One operation; without a value where an operand has none or the divisor is zero."""
    if left is None or right is None:
        return None
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    if not right:
        return None
    quotient = Fraction(left) / right
    return quotient.numerator if quotient.denominator == 1 else quotient
