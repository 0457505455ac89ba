"""Brute force for Countdown: every order of the numbers, every shape, every operator.

It shares no code with the package.
"""

from __future__ import annotations

import ast
import operator
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import permutations

Tree = int | tuple[str, "Tree", "Tree"]
_OPS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_PRIME = 2**61 - 1


def trees(numbers: tuple[int, ...], operators: str) -> Iterator[Tree]:
    """Every expression that holds each number once."""

    @cache
    def shapes(row: tuple[int, ...]) -> tuple[Tree, ...]:
        if len(row) == 1:
            return (row[0],)
        return tuple(
            (sign, left, right)
            for cut in range(1, len(row))
            for left in shapes(row[:cut])
            for right in shapes(row[cut:])
            for sign in operators
        )

    for row in sorted(set(permutations(numbers))):
        yield from shapes(row)


def values(
    numbers: tuple[int, ...], operators: str, whole: bool, inner: Callable[[Fraction], bool] = lambda _: True
) -> set[Fraction]:
    """Every value of these expressions, where each inner result passes `inner`."""

    @cache
    def of(row: tuple[int, ...]) -> frozenset[Fraction]:
        if len(row) == 1:
            return frozenset({Fraction(row[0])})
        made = set()
        for cut in range(1, len(row)):
            for a in filter(inner, of(row[:cut])) if cut > 1 else of(row[:cut]):
                for b in filter(inner, of(row[cut:])) if cut < len(row) - 1 else of(row[cut:]):
                    made |= {v for sign in operators if (v := apply(sign, a, b, whole)) is not None}
        return frozenset(made)

    return {v for row in set(permutations(numbers)) for v in of(row)}


def apply(sign: str, a: Fraction, b: Fraction, whole: bool = False) -> Fraction | None:
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    if b == 0 or (whole and (a / b).denominator != 1):
        return None
    return a / b


def value(tree: Tree) -> Fraction | None:
    """None where a divisor is zero."""
    if isinstance(tree, int):
        return Fraction(tree)
    left, right = value(tree[1]), value(tree[2])
    return None if left is None or right is None else apply(tree[0], left, right)


def text(tree: Tree) -> str:
    return str(tree) if isinstance(tree, int) else f"({text(tree[1])} {tree[0]} {text(tree[2])})"


def count(numbers: tuple[int, ...], target: int, operators: str, whole: bool, limit: int) -> int:
    """Distinct functions of the numbers among the expressions that reach the target.

    Inner results lie above 0 and at or below the limit. Expressions that differ only in order and grouping
    are one function; functions are told apart by their value at a random point of a large field. The numbers
    must be distinct.
    """
    rng = random.Random(0)
    point = {n: rng.randrange(1, _PRIME) for n in numbers}
    found = set()

    @cache
    def of(row: tuple[int, ...]) -> frozenset[tuple[Fraction, int]]:
        if len(row) == 1:
            return frozenset({(Fraction(row[0]), point[row[0]])})
        made = set()
        for cut in range(1, len(row)):
            for a, x in of(row[:cut]):
                for b, y in of(row[cut:]):
                    for sign in operators:
                        v = apply(sign, a, b, whole)
                        if v is None:
                            continue
                        if len(row) == len(numbers):
                            if v == target:
                                found.add(_at(sign, x, y))
                        elif v > 0 and max(v.numerator, v.denominator) <= limit:
                            made.add((v, _at(sign, x, y)))
        return frozenset(made)

    for row in permutations(numbers):
        of(row)
    return len(found)


def _at(sign: str, x: int, y: int) -> int:
    if sign == "/":
        return x * pow(y, -1, _PRIME) % _PRIME
    return int(_OPS[{"+": ast.Add, "-": ast.Sub, "*": ast.Mult}[sign]](x, y)) % _PRIME


def by_python(written: str) -> Fraction:
    """An independent reading of an expression, through Python's parser; division is exact."""

    def walk(node: ast.AST) -> Fraction:
        if isinstance(node, ast.BinOp):
            left, right = walk(node.left), walk(node.right)
            return left / right if isinstance(node.op, ast.Div) else _OPS[type(node.op)](left, right)
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)

    return walk(ast.parse(written, mode="eval").body)
