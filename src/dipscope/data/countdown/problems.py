"""The countdown problems that options describe: listed where there are few, drawn where there are many."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import combinations_with_replacement, islice
from math import comb

from dipscope.data.countdown.options import STANDARD, Options
from dipscope.data.countdown.search import depth
from dipscope.data.countdown.solve import Solver
from dipscope.errors import DipscopeError
from dipscope.scoring.countdown.problem import Problem, Split, split_of
from dipscope.scoring.countdown.rules import MANY, Number, Rule, Span

# Up to as many multisets of 2, 3, ... numbers every problem is listed: under a minute and a gigabyte.
LISTED = {2: 50_000, 3: 50_000, 4: 10_000, 5: 1_000}
FRACTIONS = 10  # where quotients may be fractions, a tenth as many
VALUED = 5  # up to as many numbers everything that they reach is known before a target is drawn
# What ends a stream: draws in a row without a new problem, or new problems in a row that do not fit.
FRUITLESS, UNFIT = 10_000, 2_000


def listable(options: Options) -> bool:
    """Whether every problem can be listed."""
    return all(_listable(n, options) for n in options.counts)


def _listable(n: int, options: Options) -> bool:
    fractions = "/" in options.operators and options.division == "exact"
    most = LISTED.get(n, 0) // (FRACTIONS if fractions else 1)
    return comb(options.largest - options.smallest + n, n) <= most


@cache
def problems(options: Options = STANDARD) -> dict[Split, tuple[Problem, ...]]:
    """Every solvable problem of each split, fewer numbers first and then in canonical order.

    A target that is one of the numbers makes no problem where a subset will do.

    Raises:
        DipscopeError: there are too many to list.
    """
    if not listable(options):
        fix = "Draw some of them, or lower 'largest' or 'numbers'."
        raise DipscopeError("there are too many such countdown problems to list", "options", fix)
    admitted = _admitted(options)
    found: dict[Split, list[Problem]] = {"train": [], "dev": [], "test": []}
    for n in options.counts:
        for split, rows in _listed(n, options).items():
            found[split] += filter(admitted, rows)
    return {name: tuple(rows) for name, rows in found.items()}


def _listed(n: int, options: Options) -> dict[Split, tuple[Problem, ...]]:
    targets = options.target_min, options.target_max
    return _list(n, (options.smallest, options.largest), targets, options.rule)


@cache
def _list(n: int, numbers: Span, targets: Span, rule: Rule) -> dict[Split, tuple[Problem, ...]]:
    solver = Solver(rule)
    found: dict[Split, list[Problem]] = {"train": [], "dev": [], "test": []}
    for chosen in combinations_with_replacement(range(numbers[0], numbers[1] + 1), n):
        for problem in _problems(chosen, solver.values(chosen), rule, targets):
            found[split_of(problem.key)].append(problem)
    return {name: tuple(rows) for name, rows in found.items()}


def _problems(
    numbers: tuple[int, ...], values: Iterable[Number], rule: Rule, targets: Span
) -> Iterator[Problem]:
    """The problems of these numbers whose target is among the values, in canonical order."""
    for value in sorted(values):
        plain = value.denominator == 1 and targets[0] <= value <= targets[1]
        if plain and not (rule.some and value in numbers):
            yield Problem(numbers, int(value), rule.operators, "some" if rule.some else "all")


def _admitted(options: Options) -> Callable[[Problem], bool]:
    """What a solvable problem must fulfil besides: its number of solutions and its depth."""
    solver = Solver(options.rule)

    def admitted(problem: Problem) -> bool:
        numbers, target = problem.numbers, problem.target
        return all(
            asked is None or asked[0] <= measure(numbers, target, _bound(asked)) <= asked[1]
            for asked, measure in (
                (options.depth, lambda n, t, most: depth(n, t, options.rule, most)),
                (options.solutions, solver.count),
            )
        )

    return admitted


def _bound(asked: Span) -> int:
    """How far to count in order to know whether the count lies in the range."""
    return asked[0] - 1 if asked[1] >= MANY else asked[1]


def draw(n: int, split: Split, seed: int, options: Options = STANDARD) -> list[Problem]:
    """Draw `n` distinct problems of a split; the first of a longer draw are those of a shorter one.

    Problems that can be listed are shuffled. Others are drawn: the numbers uniformly, then the target among
    those that up to five numbers reach, or, for six, among all targets until the problem is solvable. Of a
    range of counts each is equally likely until its problems run out.

    Raises:
        DipscopeError: there are fewer than `n`, or drawing finds no more.
    """
    made = list(islice(stream(split, seed, options), n))
    if len(made) < n:
        raise too_few(len(made), n, split, options)
    return made


def too_few(found: int, wanted: int, split: Split, options: Options) -> DipscopeError:
    """The error that the problems ran out."""
    what = f"countdown has {found} {split} problems, not {wanted}"
    if not listable(options):
        what += f" (then {FRUITLESS} draws gave no new one, or {UNFIT} new ones did not fit)"
    fix = "Ask for fewer rows, for more numbers or larger ones, or for less of solutions and depth."
    return DipscopeError(what, "rows", fix)


def stream(split: Split, seed: int, options: Options = STANDARD) -> Iterator[Problem]:
    """The problems of a split in the order in which `draw` takes them, until they run out."""
    name = f"countdown {split} {seed}"
    if len(options.counts) == 1:
        yield from _one_count(options.counts[0], split, random.Random(name), options)
        return
    chooser = random.Random(name)
    open_ = {n: _one_count(n, split, random.Random(f"{name} {n}"), options) for n in options.counts}
    while open_:
        n = chooser.choice(sorted(open_))
        problem = next(open_[n], None)
        if problem is None:
            del open_[n]
        else:
            yield problem


def _one_count(n: int, split: Split, rng: random.Random, options: Options) -> Iterator[Problem]:
    admitted = _admitted(options)
    if _listable(n, options):
        pool = list(_listed(n, options)[split])
        rng.shuffle(pool)
        yield from filter(admitted, pool)
        return
    solver = Solver(options.rule)
    targets = options.target_min, options.target_max
    seen: set[Problem] = set()
    idle = unfit = 0
    while idle < FRUITLESS and unfit < UNFIT:
        idle += 1
        numbers = tuple(sorted(rng.randint(options.smallest, options.largest) for _ in range(n)))
        values = solver.values(numbers) if n <= VALUED else {rng.randint(*targets)}
        made = _problems(numbers, values, options.rule, targets)
        new = [p for p in made if split_of(p.key) == split and p not in seen]
        if not new:
            continue
        problem = rng.choice(new)
        seen.add(problem)
        if (n <= VALUED or solver.reaches(numbers, problem.target)) and admitted(problem):
            yield problem
            idle = unfit = 0
        else:
            unfit += 1
