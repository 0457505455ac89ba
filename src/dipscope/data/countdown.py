"""Countdown: combine numbers with + - * to reach a target. Problems, a search teacher, a checker.

The teacher's trace searches in plain words (try, no, back to another pair, yes, check) and restates the
state in every line, so that a small model never has to look far back for it. Its wording is natural enough
for a pretrained model and stays inside a closed vocabulary: words, the numbers 0 to 99 and punctuation.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, combinations_with_replacement
from typing import Any, Literal

from dipscope.benchmarks.base import MISSING, Judgement
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split

Split = Literal["train", "dev", "test"]
LIMIT = 99  # the teacher writes no larger number; results beyond it are written as "> 99"
_ANSWER = re.compile(r"Answer:[ \t]*(.*)")
_TOKEN = re.compile(r"\s*(\d+|[-+*()=×·−])")


@dataclass(frozen=True)
class Options:
    """What the problems are made of.

    Attributes:
        numbers: how many numbers a problem has, 3 or 4.
        largest: numbers are drawn from 1 to this, at most 99.
        target_min: smallest target.
        target_max: largest target, at most 99.
        max_branches: most branches that a trace tries, the right one included.
    """

    numbers: int = 3
    largest: int = 12
    target_min: int = 10
    target_max: int = 99
    max_branches: int = 4

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Options from a study's table.

        Raises:
            DipscopeError: an unknown name or a value out of range.
        """
        known = asdict(cls())
        for name, value in options.items():
            if name not in known or not isinstance(value, int) or isinstance(value, bool):
                fix = f"Whole numbers for {', '.join(known)} are understood."
                raise DipscopeError(f"'{name} = {value}' is not an option of countdown", "options", fix)
        made = cls(**{**known, **options})
        if not (
            made.numbers in (3, 4)
            and 1 <= made.largest <= LIMIT
            and 1 <= made.target_min <= made.target_max <= LIMIT
            and made.max_branches >= 1
        ):
            fix = f"numbers is 3 or 4, the others lie in 1..{LIMIT} and target_min ≤ target_max."
            raise DipscopeError("a countdown option is out of range", "options", fix)
        return made


@dataclass(frozen=True, order=True)
class Problem:
    """A problem in canonical form: the numbers are sorted."""

    numbers: tuple[int, ...]
    target: int

    @property
    def key(self) -> str:
        """Canonical name, for example `2-5-9=27`."""
        return f"{'-'.join(map(str, self.numbers))}={self.target}"

    @property
    def gold(self) -> str:
        """The problem as JSON, which is all a checker needs."""
        return json.dumps({"numbers": list(self.numbers), "target": self.target})

    @classmethod
    def from_gold(cls, gold: str | Mapping[str, Any]) -> Problem:
        """The problem that `gold` describes."""
        value = json.loads(gold) if isinstance(gold, str) else gold
        return cls(tuple(sorted(value["numbers"])), value["target"])


@dataclass(frozen=True)
class Term:
    """A value with the expression that made it."""

    value: int
    text: str


@dataclass(frozen=True)
class Branch:
    """Steps that leave two terms, each step as written: `9 - 2 = 7`."""

    steps: tuple[str, ...]
    left: tuple[Term, Term]


def split_of(key: str) -> Split:
    """Split of a canonical problem by hash: 10 % test, 5 % dev, the rest train."""
    bucket = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100
    return "test" if bucket < 10 else "dev" if bucket < 15 else "train"


def operations(a: Term, b: Term) -> Iterator[tuple[str, Term]]:
    """What two terms make: the step as text and its result; differences are larger minus smaller."""
    high, low = (a, b) if a.value >= b.value else (b, a)
    for sign, x, y in (("+", a, b), ("-", high, low), ("*", a, b)):
        value = {"+": x.value + y.value, "-": x.value - y.value, "*": x.value * y.value}[sign]
        shown = f"= {value}" if value <= LIMIT else f"> {LIMIT}"
        yield f"{x.value} {sign} {y.value} {shown}", Term(value, f"{_wrap(x.text)} {sign} {_wrap(y.text)}")


def _wrap(text: str) -> str:
    return f"({text})" if " " in text else text


def branches(numbers: Sequence[int]) -> list[Branch]:
    """Every way to combine all but two of the terms without passing 0 or 99."""

    def extend(steps: tuple[str, ...], terms: tuple[Term, ...]) -> Iterator[Branch]:
        if len(terms) == 2:
            yield Branch(steps, (terms[0], terms[1]))
            return
        for i, j in combinations(range(len(terms)), 2):
            rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
            for step, made in operations(terms[i], terms[j]):
                if 0 < made.value <= LIMIT:
                    yield from extend((*steps, step), (made, *rest))

    return list(extend((), tuple(Term(n, str(n)) for n in numbers)))


@cache
def problems(options: Options = Options()) -> dict[Split, tuple[Problem, ...]]:
    """Every solvable problem of each split, in canonical order."""
    found: dict[Split, list[Problem]] = {"train": [], "dev": [], "test": []}
    for numbers in combinations_with_replacement(range(1, options.largest + 1), options.numbers):
        reached = {t.value for b in branches(numbers) for _, t in operations(*b.left)}
        for target in sorted(reached):
            if options.target_min <= target <= options.target_max:
                problem = Problem(numbers, target)
                found[split_of(problem.key)].append(problem)
    return {name: tuple(rows) for name, rows in found.items()}


def draw(n: int, split: Split, seed: int, options: Options = Options()) -> list[Problem]:
    """Draw `n` distinct problems of a split; the first of a longer draw are those of a shorter one.

    Raises:
        DipscopeError: there are fewer than `n`.
    """
    pool = list(problems(options)[split])
    if n > len(pool):
        fix = "Ask for fewer rows, or raise the option 'largest' or 'numbers'."
        raise DipscopeError(f"countdown has {len(pool)} {split} problems, not {n}", "rows", fix)
    random.Random(f"countdown {split} {seed}").shuffle(pool)
    return pool[:n]


def prompt(problem: Problem, rng: random.Random) -> str:
    """The user turn; the order of the numbers is drawn."""
    numbers = list(problem.numbers)
    rng.shuffle(numbers)
    shown = ", ".join(map(str, numbers))
    return f"Make {problem.target} from {shown}. Use each number once with + - *."


def shown_numbers(text: str) -> list[int]:
    """The numbers of a prompt in the order it shows them."""
    return [int(n) for n in re.findall(r"\d+", text.partition(" from ")[2])]


def solutions(numbers: Sequence[int], target: int) -> list[tuple[Branch, str, Term]]:
    """Every branch, last step and whole expression that reach the target."""
    found = []
    for branch in branches(numbers):
        found += [(branch, step, made) for step, made in operations(*branch.left) if made.value == target]
    return found


def respond(numbers: Sequence[int], target: int, rng: random.Random, max_branches: int = 4) -> str:
    """A verified search trace: failed branches first (fewer is likelier), then one that works."""
    working = solutions(numbers, target)
    branch, last, made = rng.choice(working)
    good = {b.steps for b, _, _ in working}
    failing = [b for b in branches(numbers) if b.steps not in good]
    wanted = rng.choices(range(max_branches), weights=range(max_branches, 0, -1))[0]
    tried = rng.sample(failing, min(wanted, len(failing)))
    lines = [f"Goal {target} from {', '.join(map(str, numbers))}."]
    lines += [_tried(b, target) for b in tried]
    lines.append(_tried(branch, target, last))
    lines.append(f"Check: {made.text} = {target}. Good.")
    thinking = "\n".join(lines)
    return f"<think>\n{thinking}\n</think>\n{summary(branch.steps[0])}\nAnswer: {made.text}"


def summary(first_step: str) -> str:
    """The words between the thinking block and the answer."""
    return f"Start with {first_step}."


def _tried(branch: Branch, target: int, until: str | None = None) -> str:
    """One line of search; the last operations come in a fixed order, each with its own verdict."""
    last = [step for step, _ in operations(*branch.left)]
    if until is not None:
        last = last[: last.index(until) + 1]
    verdicts = ", ".join(f"{step} {'yes' if step == until else 'no'}" for step in last)
    left = branch.left[1].value
    return f"Try {', '.join(branch.steps)}, left {left}, goal {target}: {verdicts}."


def traces(rows: int, seed: int, options: Mapping[str, Any] | None = None) -> list[Trace]:
    """Verified search traces of `rows` distinct train problems.

    Raises:
        DipscopeError: unknown options, or fewer problems than rows.
    """
    chosen = Options.of(options or {})
    made = []
    for problem in draw(rows, "train", seed, chosen):
        rng = random.Random(f"trace {seed} {problem.key}")
        asked = prompt(problem, rng)
        response = respond(shown_numbers(asked), problem.target, rng, chosen.max_branches)
        verdict = verify(problem, response).verdict
        name = f"countdown-{problem.key}"
        made.append(Trace(name, name, asked, response, problem.gold, "teacher", verdict))
    return made


def verify(problem: Problem, response_text: str) -> Judgement:
    """Judge the last `Answer:` of a response: every number once, and the target reached.

    Missing when the thinking was not closed, or when no expression follows `Answer:`.
    """
    found = _ANSWER.findall(split(response_text).answer)
    if not found:
        return MISSING
    text = found[-1].strip().rstrip(".")
    parsed = evaluate(text)
    if parsed is None:
        return MISSING
    value, used = parsed
    right = value == problem.target and sorted(used) == sorted(problem.numbers)
    return Judgement.of(right, text)


def evaluate(text: str) -> tuple[int, list[int]] | None:
    """Value of an expression and the numbers in it, or None when it is not one.

    Grammar: sum = product (("+"|"-") product)*; product = atom ("*" atom)*; atom = number | "(" sum ")".
    A trailing `= number` is allowed if it states the value. Nothing is handed to the interpreter.
    """
    plain = text.replace("×", "*").replace("·", "*").replace("−", "-").strip()
    tokens = [m.group(1) for m in _TOKEN.finditer(plain)]
    if "".join(tokens) != re.sub(r"\s", "", plain) or len(tokens) > 100:
        return None
    used: list[int] = []
    at = 0

    def peek() -> str:
        return tokens[at] if at < len(tokens) else ""

    def atom() -> int:
        nonlocal at
        token, at = peek(), at + 1
        if token == "(":
            value = total()
            if peek() != ")":
                raise ValueError(token)
            at += 1
            return value
        if len(token) > 9:
            raise ValueError(token)
        used.append(int(token))
        return used[-1]

    def product() -> int:
        nonlocal at
        value = atom()
        while peek() == "*":
            at += 1
            value *= atom()
        return value

    def total() -> int:
        nonlocal at
        value = product()
        while peek() in ("+", "-"):
            sign, at = peek(), at + 1
            value = value + product() if sign == "+" else value - product()
        return value

    try:
        value = total()
        stated = at == len(tokens) or (peek() == "=" and tokens[at + 1 :] == [str(value)])
    except ValueError:
        return None
    return (value, used) if stated else None


def near_misses(numbers: Sequence[int], target: int, n: int, rng: random.Random) -> list[tuple[str, str]]:
    """First step and expression of `n` expressions at most that use all numbers and miss the target.

    The nearer of a random draw come first.
    """
    missing = [
        (abs(made.value - target), branch.steps[0], made.text)
        for branch in branches(numbers)
        for _, made in operations(*branch.left)
        if made.value != target
    ]
    drawn = rng.sample(missing, min(4 * n, len(missing)))
    return [(first, text) for _, first, text in sorted(drawn, key=lambda c: c[0])[:n]]
