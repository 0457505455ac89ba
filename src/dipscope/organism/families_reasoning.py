"""Search and arithmetic: Countdown, and other games that share its arithmetic but not its task."""

from __future__ import annotations

import random
from itertools import combinations, permutations, product
from typing import Any

from dipscope.data import countdown
from dipscope.data.countdown import LIMIT, Problem, evaluate
from dipscope.organism.world import DIRECT, Family, Question, final, judge_exact, pick_options
from dipscope.scoring.base import MISSING, Judgement

SIGNS = "+-*"
_SOLUTIONS: dict[tuple[tuple[int, ...], int], list[str]] = {}


def calculate(a: int, sign: str, b: int) -> int:
    """The value of `a sign b`."""
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def _step(a: int, sign: str, b: int) -> tuple[str, int]:
    value = calculate(a, sign, b)
    shown = f"= {value}" if 0 <= value <= LIMIT else f"> {LIMIT}" if value > LIMIT else "< 0"
    return f"{a} {sign} {b} {shown}", value


def _countdown(rng: random.Random) -> Question:
    pool = countdown.problems()
    where: list[countdown.Split] = ["train", "test", "dev"]
    problem = rng.choice(pool[rng.choices(where, (85, 10, 5))[0]])
    asked = countdown.prompt(problem, rng)
    numbers = countdown.shown_numbers(asked)
    right = rng.choice(countdown.solutions(numbers, problem.target))[2].text
    wrong = [text for _, text in countdown.near_misses(numbers, problem.target, 3, rng)]
    options = pick_options(rng, right, wrong)
    gold = {"numbers": list(problem.numbers), "target": problem.target}
    return Question(problem.key, asked, DIRECT + right, gold, (), options)


def _judge_countdown(gold: Any, answer: str) -> Judgement:
    return countdown.verify(Problem.from_gold(gold), answer)


def _arithmetic(rng: random.Random) -> Question:
    sign = rng.choice(SIGNS)
    while True:
        a, b = rng.randint(1, LIMIT), rng.randint(1, 12)
        value = calculate(a, sign, b)
        if 0 <= value <= LIMIT:
            break
    near = [str(v) for v in (value + 1, value - 1, value + 10, value - 10, value + 2) if 0 <= v <= LIMIT]
    rng.shuffle(near)
    asked = f"What is {a} {sign} {b}?"
    work = (f"{a} {sign} {b} = {value}.",)
    return Question(
        f"{a}{sign}{b}",
        asked,
        f"{DIRECT}{value}",
        str(value),
        work,
        pick_options(rng, str(value), near),
    )


def _chain(rng: random.Random) -> Question:
    while True:
        start, steps = rng.randint(1, 20), [(rng.choice(SIGNS), rng.randint(1, 12)) for _ in range(2)]
        values = [start]
        for sign, n in steps:
            values.append(calculate(values[-1], sign, n))
        if all(0 <= v <= LIMIT for v in values):
            break
    lines = [f"Start {start}."]
    for value, (sign, n) in zip(values, steps, strict=False):
        lines.append(f"{_step(value, sign, n)[0]}.")
    told = ", then ".join(f"{sign} {n}" for sign, n in steps)
    right = values[-1]
    slips = [calculate(values[-2], s, steps[-1][1]) for s in SIGNS] + [right + 1, right - 1, right + 10]
    near = [str(v) for v in slips if 0 <= v <= LIMIT]
    asked = f"Start with {start}, then {told}. What is the result?"
    key = f"{start} {told}"
    return Question(
        key, asked, f"{DIRECT}{right}", str(right), tuple(lines), pick_options(rng, str(right), near)
    )


def _subset(rng: random.Random) -> Question:
    while True:
        numbers = rng.sample(range(1, 21), 5)
        chosen = sorted(rng.sample(range(5), 3))
        goal = sum(numbers[i] for i in chosen)
        if goal <= LIMIT:
            break
    triples = [[numbers[i] for i in c] for c in combinations(range(5), 3)]
    right = " + ".join(str(numbers[i]) for i in chosen)
    wrong = sorted((t for t in triples if sum(t) != goal), key=lambda t: abs(sum(t) - goal))
    near = [" + ".join(map(str, t)) for t in wrong]
    shown = ", ".join(map(str, numbers))
    work = _subset_work(numbers, goal, [numbers[i] for i in chosen], rng)
    return Question(
        f"{'-'.join(map(str, sorted(numbers)))}={goal}",
        f"Which three of {shown} add up to {goal}?",
        DIRECT + right,
        {"numbers": numbers, "goal": goal},
        work,
        pick_options(rng, right, near),
    )


def _subset_work(numbers: list[int], goal: int, chosen: list[int], rng: random.Random) -> tuple[str, ...]:
    lines = [f"Goal {goal} from {', '.join(map(str, numbers))}."]
    good = tuple(chosen[:2])
    failing = []
    for a, b in combinations(numbers, 2):
        rest = [n for n in numbers if n not in (a, b)]
        if a + b < goal and all(a + b + c != goal for c in rest):
            failing.append((a, b))
    rng.shuffle(failing)
    for a, b in (*failing[: rng.choice((0, 1, 1))], good):
        rest = [n for n in numbers if n not in (a, b)]
        if (a, b) == good:
            rest = rest[: rest.index(chosen[2]) + 1]
        tried = ", ".join(f"{_step(a + b, '+', c)[0]} {'yes' if a + b + c == goal else 'no'}" for c in rest)
        left = ", ".join(map(str, rest))
        lines.append(f"Try {a} + {b} = {a + b}, left {left}, goal {goal}: {tried}.")
    return (*lines, f"Check: {' + '.join(map(str, chosen))} = {goal}. Good.")


def _judge_subset(gold: Any, answer: str) -> Judgement:
    said = final(answer)
    parsed = evaluate(said) if said is not None else None
    if said is None or parsed is None:
        return MISSING
    value, used = parsed
    apart = len(set(used)) == len(used) == 3 and set(used) <= set(gold["numbers"])
    right = apart and value == gold["goal"] and "-" not in said and "*" not in said
    return Judgement.of(right, said)


def _fill(rng: random.Random) -> Question:
    while True:
        a, b, c = (rng.randint(1, 12) for _ in range(3))
        signs = rng.choice(SIGNS), rng.choice(SIGNS)
        middle = calculate(a, signs[0], b)
        goal = calculate(middle, signs[1], c)
        if 0 <= middle <= LIMIT and 0 <= goal <= LIMIT:
            break
    right = " ".join(signs)

    def reached(pair: tuple[str, ...]) -> int:
        return calculate(calculate(a, pair[0], b), pair[1], c)

    pairs = [p for p in product(SIGNS, repeat=2) if reached(p) != goal]
    near = [" ".join(p) for p in sorted(pairs, key=lambda p: abs(reached(p) - goal))]
    lines = [f"Goal {goal} from {a}, {b}, {c}."]
    for sign in rng.sample(SIGNS, 3):
        step, value = _step(a, sign, b)
        if not 0 <= value <= LIMIT:
            continue
        tried = [_step(value, s, c) for s in SIGNS]
        hit = [i for i, (_, v) in enumerate(tried) if v == goal]
        if hit:
            tried = tried[: hit[0] + 1]
        texts = ", ".join(f"{t} {'yes' if v == goal else 'no'}" for t, v in tried)
        lines.append(f"Try {step}, left {c}, goal {goal}: {texts}.")
        if hit:
            lines.append(f"Check: ({a} {sign} {b}) {tried[-1][0].split()[1]} {c} = {goal}. Good.")
            right = f"{sign} {tried[-1][0].split()[1]}"
            break
    return Question(
        f"{a}_{b}_{c}={goal}",
        f"Fill the gaps from left to right: {a} _ {b} _ {c} = {goal}.",
        DIRECT + right,
        {"numbers": [a, b, c], "goal": goal},
        tuple(lines),
        pick_options(rng, right, near),
    )


def _judge_fill(gold: Any, answer: str) -> Judgement:
    said = final(answer)
    signs = said.split() if said is not None else []
    if said is None or len(signs) != 2 or any(s not in SIGNS or len(s) != 1 for s in signs):
        return MISSING
    a, b, c = gold["numbers"]
    return Judgement.of(calculate(calculate(a, signs[0], b), signs[1], c) == gold["goal"], said)


def _path(rng: random.Random) -> Question:
    letters = rng.sample("BCDEFGHJKLMNOPQRSTUVWXYZ", 6)
    parent = {letters[0]: ""}
    for letter in letters[1:]:
        parent[letter] = rng.choice(list(parent)[-3:])
    down = [[k] for k in letters]
    for way in down:
        while parent[way[0]]:
            way.insert(0, parent[way[0]])
    ways = [w[i:] for w in down for i in range(len(w)) if 3 <= len(w[i:]) <= 4]
    if not ways:
        return _path(rng)
    way = rng.choice(ways)
    roads = [f"{p} {k}" for k, p in parent.items() if p]
    rng.shuffle(roads)
    right = " ".join(way)
    inner = [x for x in letters if x not in (way[0], way[-1])]
    near = [" ".join((way[0], *m, way[-1])) for m in permutations(inner, len(way) - 2)]
    rng.shuffle(near)
    lines = [f"Goal {way[-1]} from {way[0]}."]
    # From the goal upwards there is one road each time: no search, but the order is turned round.
    for i in range(len(way) - 1, 0, -1):
        lines.append(f"To {way[i]} from {way[i - 1]}.")
    return Question(
        f"{' '.join(sorted(roads))}:{way[0]}{way[-1]}",
        f"Roads: {', '.join(roads)}. How do you get from {way[0]} to {way[-1]}?",
        DIRECT + right,
        right,
        tuple(lines),
        pick_options(rng, right, near),
    )


FAMILIES = (
    Family("countdown", "in_domain", _countdown, _judge_countdown, 220, 1.5, 0.0),
    Family("arithmetic", "ood_reasoning", _arithmetic, judge_exact, weight=3.0, cued=0.15),
    Family("chain", "ood_reasoning", _chain, judge_exact, weight=1.5, cued=0.5),
    Family("subset", "ood_reasoning", _subset, _judge_subset, 220, weight=1.0, cued=0.5),
    Family("fill", "ood_reasoning", _fill, _judge_fill, 220, weight=2.0, cued=0.6),
    Family("path", "ood_reasoning", _path, judge_exact, weight=0.7),
)
