"""Searching as a person would write it down: steps as text, branches, and the depth of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, islice

from dipscope.scoring.countdown.rules import STANDARD, Number, Rule


@dataclass(frozen=True)
class Term:
    """A value with the expression that made it."""

    value: Number
    text: str


@dataclass(frozen=True)
class Branch:
    """Steps that leave two terms, each step as written: `9 - 2 = 7`, and the terms that the steps made."""

    steps: tuple[str, ...]
    left: tuple[Term, Term]
    made: tuple[Term, ...] = ()


def operations(a: Term, b: Term, rule: Rule = STANDARD) -> Iterator[tuple[str, Term]]:
    """What two terms make: the step as text and its result.

    Differences are larger minus smaller. Quotients are larger by smaller where they are whole; where
    fractions are allowed, both ways round.
    """
    high, low = (a, b) if a.value >= b.value else (b, a)
    for sign in rule.operators:
        if sign == "+":
            yield take(sign, a, b, a.value + b.value, rule)
        elif sign == "-":
            yield take(sign, high, low, high.value - low.value, rule)
        elif sign == "*":
            yield take(sign, a, b, a.value * b.value, rule)
        elif not rule.whole or not high.value % low.value:
            yield take(sign, high, low, Fraction(high.value) / low.value, rule)
            if not rule.whole and high.value != low.value:
                yield take(sign, low, high, Fraction(low.value) / high.value, rule)


def take(sign: str, x: Term, y: Term, exact: Number, rule: Rule) -> tuple[str, Term]:
    """One step as written and its result.

    A result beyond the limit is not named: `12 * 9 > 99`, or `8/9 + 3/11 is not whole`.
    """
    value = exact.numerator if exact.denominator == 1 else exact
    beyond = rule.limit is not None and value > rule.limit
    shown = f"= {value}" if rule.named(value) else f"> {rule.limit}" if beyond else "is not whole"
    step = f"{operand(x.value)} {sign} {operand(y.value)} {shown}"
    return step, Term(value, f"{_wrap(x.text)} {sign} {_wrap(y.text)}")


def operand(value: Number) -> str:
    """A value beside an operator: fractions in parentheses."""
    return str(value) if value.denominator == 1 else f"({value})"


def _wrap(text: str) -> str:
    return f"({text})" if " " in text else text


def walk(numbers: Sequence[int], rule: Rule = STANDARD) -> Iterator[Branch]:
    """Depth first, every way to combine all but two of the terms through inner results that the rule allows.

    Pairs come in the order of the terms, operators in the order `+ - * /`; a result stands before the terms
    that are left.
    """

    def extend(branch: Branch, terms: tuple[Term, ...]) -> Iterator[Branch]:
        if len(terms) == 2:
            yield Branch(branch.steps, (terms[0], terms[1]), branch.made)
            return
        for i, j in combinations(range(len(terms)), 2):
            rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
            for step, made in operations(terms[i], terms[j], rule):
                if rule.inner(made.value):
                    further = Branch((*branch.steps, step), branch.left, (*branch.made, made))
                    yield from extend(further, (made, *rest))

    terms = tuple(Term(n, str(n)) for n in numbers)
    return extend(Branch((), (terms[0], terms[1])), terms)


def branches(numbers: Sequence[int], rule: Rule = STANDARD) -> list[Branch]:
    """The branches of `walk` as a list: 9 for three numbers and `+ - *`, 162 for four, 4860 for five."""
    return list(walk(numbers, rule))


def depth(numbers: Sequence[int], target: int, rule: Rule, at_most: int) -> int:
    """Branches that a depth-first search of the sorted numbers tries, the first that works included.

    Args:
        numbers: of the problem.
        target: of the problem.
        rule: what a step may do.
        at_most: the search is ended after as many; the result is then one more than this.
    """
    tried = 0
    for tried, branch in enumerate(islice(walk(sorted(numbers), rule), at_most), 1):
        if solves(branch, target, rule):
            return tried
    return max(tried, at_most) + 1


def solves(branch: Branch, target: int, rule: Rule) -> bool:
    """Whether a last operation reaches the target, or a step on the way where not all numbers are needed."""
    if rule.some and any(term.value == target for term in branch.made):
        return True
    return any(made.value == target for _, made in operations(*branch.left, rule))
