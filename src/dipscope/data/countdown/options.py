"""What countdown problems are made of, and how the teacher writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dipscope.errors import DipscopeError
from dipscope.scoring.countdown.rules import MANY, OPERATORS, Rule, Span, limit_for, span

PromptStyle = Literal["short", "list"]
LARGEST, LARGEST_TARGET, MOST_NUMBERS = 9_999, 99_999, 6


@dataclass(frozen=True)
class Options:
    """What the problems are made of, and how the teacher writes.

    With the defaults, and for every choice with numbers and targets up to 99 and without division, a trace
    holds no number above 99.

    Attributes:
        numbers: how many numbers a problem has, 2 to 6; a pair is a range, each count equally likely.
        largest: numbers are drawn from `smallest` to this.
        target_min: smallest target.
        target_max: largest target.
        max_branches: most branches that a trace tries, the right one included.
        smallest: smallest number.
        operators: a subset of `+-*/`.
        division: `whole`: a quotient must be a whole number; `exact`: it may be a fraction.
        use: `all`: each number is used once; `some`: at most once.
        limit: largest result of a step that is not the last; 0 takes 99, 9999 or 999999 by the size of
            numbers and targets.
        solutions: least and most distinct solutions, see `solve.Solver.count`; None does not ask.
        depth: least and most branches of a depth-first search, see `search.depth`; None does not ask.
        backtracking: mean number of failed branches before the right one, drawn from a binomial law on
            0 .. max_branches - 1; None: fewer are likelier, with falling weights.
        verification: probability that a branch is followed by a line that checks its best result; None:
            the right one always, failed ones never.
        subgoals: probability that a branch begins with what would do, such as `Need 27, so 3 * 9 would do.`
        prompt_style: `short`, one sentence; `list`, the published form with `Numbers: [...]` and
            `Target: n`, answered in a box.

    Raises:
        DipscopeError: a value is out of range, or values do not go together.
    """

    numbers: int | Span = 3
    largest: int = 12
    target_min: int = 10
    target_max: int = 99
    max_branches: int = 4
    smallest: int = 1
    operators: str = "+-*"
    division: Literal["whole", "exact"] = "whole"
    use: Literal["all", "some"] = "all"
    limit: int = 0
    solutions: Span | None = None
    depth: Span | None = None
    backtracking: float | None = None
    verification: float | None = None
    subgoals: float = 0.0
    prompt_style: PromptStyle = "short"
    rule: Rule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for wrong, what, fix in self._faults():
            if wrong:
                raise DipscopeError(f"a countdown option is out of range: {what}", "options", fix)
        operators = "".join(sign for sign in OPERATORS if sign in self.operators)
        object.__setattr__(self, "operators", operators)
        limit = self.limit or limit_for(max(self.largest, self.target_max))
        rule = Rule(operators, self.division == "whole", limit, self.use == "some")
        object.__setattr__(self, "rule", rule)

    @property
    def counts(self) -> range:
        """How many numbers a problem may have."""
        low, high = (self.numbers, self.numbers) if isinstance(self.numbers, int) else self.numbers
        return range(low, high + 1)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Options from a study's table. Ranges are written "3-4"; `target` sets both ends.

        Raises:
            DipscopeError: an unknown name, a value of the wrong kind or out of range.
        """
        values: dict[str, Any] = {}
        for name, value in options.items():
            try:
                values |= _KINDS[name](name, value)
            except (KeyError, ValueError):
                fix = f'Options are {", ".join(_KINDS)}; ranges are written "3-4".'
                raise DipscopeError(
                    f"'{name} = {value}' is not an option of countdown", "options", fix
                ) from None
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Every option that is set, as `of` takes it and JSON can hold it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        shown = {name: _written(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return {name: value for name, value in shown.items() if value is not None}

    def _faults(self) -> list[tuple[bool, str, str]]:
        low, high = self.counts.start, self.counts.stop - 1
        signs = set(self.operators)
        rates = (self.verification or 0.0, self.subgoals)
        failures = self.backtracking or 0.0
        top = max(self.largest, self.target_max)
        return [
            (not 2 <= low <= high <= MOST_NUMBERS, f"numbers = {low}-{high}", "It lies in 2-6."),
            (
                not 1 <= self.smallest <= self.largest <= LARGEST,
                f"numbers from {self.smallest} to {self.largest}",
                f"smallest ≤ largest, both in 1..{LARGEST}.",
            ),
            (
                not 1 <= self.target_min <= self.target_max <= LARGEST_TARGET,
                f"targets from {self.target_min} to {self.target_max}",
                f"target_min ≤ target_max, both in 1..{LARGEST_TARGET}.",
            ),
            (
                any(asked is not None and asked[0] < 1 for asked in (self.solutions, self.depth)),
                "solutions or depth",
                "Both are counted from 1.",
            ),
            (self.max_branches < 1, f"max_branches = {self.max_branches}", "It is at least 1."),
            (not signs or not signs <= set(OPERATORS), f"operators = '{self.operators}'", "Any of + - * /."),
            (self.division not in ("whole", "exact"), f"division = '{self.division}'", "whole or exact."),
            (self.use not in ("all", "some"), f"use = '{self.use}'", "all or some."),
            (
                self.prompt_style not in ("short", "list"),
                f"prompt_style = '{self.prompt_style}'",
                "short or list.",
            ),
            (bool(self.limit) and self.limit < top, f"limit = {self.limit}", f"It is 0 or at least {top}."),
            (not all(0 <= r <= 1 for r in rates), "verification and subgoals", "Both are in 0..1."),
            (
                not 0 <= failures <= self.max_branches - 1,
                f"backtracking = {self.backtracking}",
                f"It is a mean number of failed branches, 0..max_branches - 1 = {self.max_branches - 1}.",
            ),
            (
                failures > 0 and low == 2,
                "backtracking with two numbers",
                "Two numbers leave one branch, which cannot fail: ask for 3 or more.",
            ),
        ]


def _written(values: Span) -> str:
    low, high = values
    return f"{low}-" if high >= MANY else f"{low}-{high}"


def _whole(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(name)
    return {name: value}


def _rate(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(name)
    return {name: float(value)}


def _word(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise ValueError(name)
    return {name: value.replace(" ", "")}


def _numbers(name: str, value: Any) -> dict[str, Any]:
    low, high = span(value)
    return {name: low if low == high else (low, high)}


def _span(name: str, value: Any) -> dict[str, Any]:
    return {name: span(value)}


def _target(name: str, value: Any) -> dict[str, Any]:
    low, high = span(value)
    return {"target_min": low, "target_max": high}


_KINDS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    **{f.name: _whole for f in fields(Options) if f.init},
    "numbers": _numbers,
    "target": _target,
    "solutions": _span,
    "depth": _span,
    **dict.fromkeys(("operators", "division", "use", "prompt_style"), _word),
    **dict.fromkeys(("backtracking", "verification", "subgoals"), _rate),
}

STANDARD = Options()  # the problems of the embedded world
