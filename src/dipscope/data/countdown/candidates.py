"""Branches that are drawn: one that works, some that fail, and near misses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

from dipscope.data.countdown.search import Branch, Term, branches, operations, solves, take, walk
from dipscope.data.countdown.solve import Solver, Tree
from dipscope.scoring.countdown.rules import STANDARD, Rule, apart, limit_for

LISTED = 4  # up to as many numbers the branches are listed; beyond, they are drawn
_WALKS = 200  # random branches looked at for each one wanted


def solutions(numbers: Sequence[int], target: int, rule: Rule = STANDARD) -> list[tuple[Branch, str, Term]]:
    """Every branch, last step and whole expression that reach the target with all numbers."""
    found = []
    for branch in walk(numbers, rule):
        found += [
            (branch, step, made) for step, made in operations(*branch.left, rule) if made.value == target
        ]
    return found


def draw_working(
    numbers: Sequence[int], target: int, rng: random.Random, rule: Rule
) -> tuple[Branch, str, Term] | None:
    """A branch that works, its last step and whole expression; None where there is none.

    Where a subset will do, its numbers are drawn first.
    """
    if not rule.some:
        return _working(numbers, target, rng, rule)
    sizes = range(2, len(numbers) + 1)
    subsets = sorted({c for size in sizes for c in combinations(sorted(numbers), size)})
    for chosen in rng.sample(subsets, len(subsets)):
        found = _working(chosen, target, rng, rule)
        if found:
            return found
    return None


def _working(
    numbers: Sequence[int], target: int, rng: random.Random, rule: Rule
) -> tuple[Branch, str, Term] | None:
    if len(numbers) <= LISTED:
        listed = solutions(numbers, target, rule)
        if not listed:
            return None
        branch = rng.choice(listed)[0]
        return branch, *_last(branch, target, rule)
    tree = Solver(rule).tree(numbers, target, rng)
    if tree is None or isinstance(tree, int):
        return None
    one, other = _grow(tree[1], rule), _grow(tree[2], rule)
    left = (other[0], one[0]) if other[1] else (one[0], other[0])  # as in `walk`, the last made comes first
    branch = Branch(
        tuple(step for step, _ in one[1] + other[1]), left, tuple(made for _, made in one[1] + other[1])
    )
    return branch, *_last(branch, target, rule)


def _last(branch: Branch, target: int, rule: Rule) -> tuple[str, Term]:
    """The first last operation that reaches the target, at which a trace ends: `24 * 1`, not `24 / 1`."""
    return next((step, made) for step, made in operations(*branch.left, rule) if made.value == target)


def _grow(tree: Tree, rule: Rule) -> tuple[Term, list[tuple[str, Term]]]:
    """The term that a tree makes and the steps to it."""
    if isinstance(tree, int):
        return Term(tree, str(tree)), []
    (one, before), (other, after) = _grow(tree[1], rule), _grow(tree[2], rule)
    exact = {
        "+": one.value + other.value,
        "-": one.value - other.value,
        "*": one.value * other.value,
        "/": Fraction(one.value) / other.value if other.value else 0,
    }[tree[0]]
    step, made = take(tree[0], one, other, exact, rule)
    return made, [*before, *after, (step, made)]


def draw_failing(numbers: Sequence[int], target: int, n: int, rng: random.Random, rule: Rule) -> list[Branch]:
    """At most `n` branches that do not reach the target; none twice, unless equal numbers make it look so."""
    if len(numbers) <= LISTED and not rule.some:
        failing = [b for b in walk(numbers, rule) if not solves(b, target, rule)]
        return rng.sample(failing, min(n, len(failing)))
    found: dict[tuple[str, ...], Branch] = {}
    for _ in range(_WALKS * n):
        if len(found) == n:
            break
        size = rng.randint(3, len(numbers)) if rule.some and len(numbers) > 3 else len(numbers)
        branch = _random_branch(rng.sample(list(numbers), size), rng, rule)
        if branch and not solves(branch, target, rule):
            found.setdefault(branch.steps, branch)
    return list(found.values())


def _random_branch(numbers: Sequence[int], rng: random.Random, rule: Rule) -> Branch | None:
    """A random way down; None where it ends before two terms are left."""
    terms = [Term(n, str(n)) for n in numbers]
    taken: list[tuple[str, Term]] = []
    while len(terms) > 2:
        i, j = sorted(rng.sample(range(len(terms)), 2))
        able = [o for o in operations(terms[i], terms[j], rule) if rule.inner(o[1].value)]
        if not able:
            return None
        taken.append(rng.choice(able))
        terms = [taken[-1][1], *(t for k, t in enumerate(terms) if k not in (i, j))]
    return Branch(tuple(s for s, _ in taken), (terms[0], terms[1]), tuple(m for _, m in taken))


def near_misses(numbers: Sequence[int], target: int, n: int, rng: random.Random) -> list[tuple[str, str]]:
    """First step and expression of `n` expressions at most that use all numbers and miss the target.

    They hold `+ - *`. The nearer of a random draw come first.
    """
    rule = Rule(limit=limit_for(max(*numbers, target)))
    if len(numbers) <= LISTED:
        some = branches(numbers, rule)
    else:
        some = draw_failing(numbers, target, 8 * n, rng, rule)
    missing = [
        (apart(made.value, target), branch.steps[0] if branch.steps else step, made.text)
        for branch in some
        for step, made in operations(*branch.left, rule)
        if made.value != target
    ]
    drawn = rng.sample(missing, min(4 * n, len(missing)))
    return [(first, text) for _, first, text in sorted(drawn, key=lambda c: c[0])[:n]]
