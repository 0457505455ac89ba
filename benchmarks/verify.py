"""Verdicts per CPU second of the verifier on distinct pairs, by kind and in a mix; prints one JSON line.

Run as: python benchmarks/verify.py [PAIRS]

The mix has the shares that the golds of MATH-500 have (332 integers, 68 fractions and decimals, 41 roots and
multiples of π, 25 points, lists and matrices, 14 polynomials, 8 intervals, 8 texts, 4 equations). Half of the
answers are right and spelled otherwise; no pair comes twice, so no cache helps. `one process` counts CPU
seconds of `verify` in this process; `pool` is a pool with one worker, in wall seconds without its start and
in CPU seconds of parent and worker together.
"""

from __future__ import annotations

import json
import platform
import random
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from dipscope.scoring.verifiers import Verifiers
from dipscope.scoring.verify import VERSION, verify

Pair = tuple[str, str]


def integer(rng: random.Random, right: bool) -> Pair:
    n = rng.randint(-(10**6), 10**9)
    return str(n), f"{n + (not right):,}"


def fraction(rng: random.Random, right: bool) -> Pair:
    a, b, k = rng.randint(1, 9999), rng.randint(2, 9999), rng.randint(2, 5)
    return rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{a * k + (not right)}}}{{{b * k}}}"


def root(rng: random.Random, right: bool) -> Pair:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9999), rng.randint(1, 999)
    return rf"{c}+{a}\sqrt{{{b}}}\pi", rf"\pi\sqrt{{{a * a * b}}} + {c + (not right)}"


def point(rng: random.Random, right: bool) -> Pair:
    a, b, c = (rng.randint(-9999, 9999) for _ in range(3))
    return rf"\left( {a}, {b}, \frac{{{c}}}{{7}} \right)", rf"({a},{b + (not right)},\tfrac{{{c}}}{{7}})"


def polynomial(rng: random.Random, right: bool) -> Pair:
    a, b, c = (rng.randint(1, 999) for _ in range(3))
    return f"{a * b}x^2+{a * c + b}x+{c}", f"({a}x+1)({b}x+{c + (not right)})"


def interval(rng: random.Random, right: bool) -> Pair:
    a, b = rng.randint(-9999, 0), rng.randint(1, 9999)
    return f"[{a},{b})", rf"{a} \le x < {b + (not right)}"


def equation(rng: random.Random, right: bool) -> Pair:
    a, b, c, k = (rng.randint(2, 99) for _ in range(4))
    return f"{a}x-{b}y+{c}=0", f"{a * k}x-{b * k}y+{c * k + (not right)}=0"


def text(rng: random.Random, right: bool) -> Pair:
    word = "".join(rng.choices("abcdefghijklmnop", k=8))
    return rf"\text{{{word}}}", word.capitalize() if right else word[::-1]


KINDS: dict[str, tuple[Callable[[random.Random, bool], Pair], float]] = {
    "integer": (integer, 0.664), "fraction": (fraction, 0.136), "root": (root, 0.082), "point": (point, 0.05),
    "polynomial": (polynomial, 0.028), "interval": (interval, 0.016), "equation": (equation, 0.008),
    "text": (text, 0.016),
}  # fmt: skip


def drawn(make: Callable[[random.Random, bool], Pair], n: int, seed: str) -> list[tuple[Pair, str]]:
    """`n` distinct pairs with the verdict that each must get, half of them correct."""
    rng = random.Random(seed)
    found: dict[Pair, str] = {}
    while len(found) < n:
        right = rng.random() < 0.5
        found[make(rng, right)] = "correct" if right else "wrong"
    return list(found.items())


def checked(pairs: list[tuple[Pair, str]], verdicts: list[str]) -> int:
    return sum(wanted != verdict for (_, wanted), verdict in zip(pairs, verdicts, strict=True))


def cpu() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def pooled(pairs: list[tuple[Pair, str]]) -> dict[str, float]:
    """Rates of a pool with one worker; starting it is left out of the wall time and told apart."""
    begun = cpu(), time.perf_counter()
    with Verifiers(1) as verifiers:
        next(verifiers.judge([("start", "up")]))
        started = time.perf_counter()
        verdicts = [j.verdict for j in verifiers.judge(pair for pair, _ in pairs)]
        seconds = time.perf_counter() - started
    return {
        "pairs": len(pairs),
        "start_seconds": round(started - begun[1], 2),
        "verdicts_per_wall_second": round(len(pairs) / seconds),
        "verdicts_per_cpu_second_with_start": round(len(pairs) / (cpu() - begun[0])),
        "unexpected": checked(pairs, verdicts),
    }


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for make, _ in KINDS.values():
        for pair, _ in drawn(make, 3, "warm"):
            verify(*pair)
    kinds, mix = {}, []
    for name, (make, share) in KINDS.items():
        pairs = drawn(make, max(20, min(300, int(n * share))), f"kind {name}")
        begun = time.process_time()
        verdicts = [verify(*pair).verdict for pair, _ in pairs]
        seconds = time.process_time() - begun
        kinds[name] = {
            "pairs": len(pairs),
            "verdicts_per_cpu_second": round(len(pairs) / seconds),
            "unexpected": checked(pairs, verdicts),
        }
        mix += drawn(make, round(n * share), f"mix {name}")
    random.Random("mix").shuffle(mix)
    result = {
        "benchmark": "verify",
        "one process": kinds,
        "pool, mix": pooled(mix),
        "pool, integers": pooled(drawn(integer, 20 * n, "cheap")),
        "version": VERSION,
        "sympy": version("sympy"),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
