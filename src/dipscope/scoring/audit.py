"""A sample of stored verdicts checked a second time, by code that shares nothing with the first checker.

`numeric.equal` is the second checker of numbers and formulas, `expression` that of Countdown. The sample is
stratified; shares are weighted back to all verdicts (ratio estimator), with Wilson's interval at Kish's
effective sample size, (Σw)² / Σw² (L. Kish, Survey Sampling, 1965, section 11.7).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from dipscope.scoring import numeric, verify
from dipscope.scoring.arithmetic import Node, Unreadable, parse, value

Kind = Literal["number", "expression"]
_SIGNS = str.maketrans(dict.fromkeys("−–", "-") | dict.fromkeys("×·⋅∗", "*") | dict.fromkeys("÷∕", "/"))
_ARITHMETIC = "+-*/"


@dataclass(frozen=True)
class Verdict:
    """A stored verdict of `correct` or `wrong`.

    Attributes:
        key: names the record.
        stratum: what it is sampled within.
        kind: which second checker it has.
        gold: the gold answer: text, or for an expression the problem as a mapping or its JSON.
        said: the answer that was read out of the response; None where that is not stored.
        correct: what the first checker said.
    """

    key: str
    stratum: tuple[Hashable, ...]
    kind: Kind
    gold: Any
    said: str | None
    correct: bool


@dataclass(frozen=True)
class Checked:
    """A verdict of the sample.

    Attributes:
        verdict: the stored one.
        weight: how many verdicts of its stratum it stands for.
        second: what the second checker says; None where it cannot say.
    """

    verdict: Verdict
    weight: float
    second: bool | None

    @property
    def disagrees(self) -> bool:
        """Whether both say something, and not the same."""
        return self.second is not None and self.second != self.verdict.correct


@dataclass(frozen=True)
class Disagreement:
    """How often the second checker disagrees.

    Attributes:
        verdicts: how many the shares speak for.
        sampled: how many of them were checked.
        judged: how many of these the second checker could judge.
        pairs: how many different pairs of gold and answer those are.
        disagreements: how many it judged otherwise.
        cannot_say: share of the verdicts that it cannot judge, weighted.
        rate: share of disagreements among those that it can, weighted; None where it can judge none.
        low: lower end of the 95 % interval of the rate.
        high: upper end.
    """

    verdicts: int
    sampled: int
    judged: int
    pairs: int
    disagreements: int
    cannot_say: float
    rate: float | None
    low: float
    high: float


def sample(verdicts: Iterable[Verdict], n: int, seed: int) -> list[Checked]:
    """Draw a stratified sample and check it.

    Every stratum gives at least one verdict, so that it may be larger than `n`; beyond that they give in
    proportion to their sizes. Which ones is decided by the hashes of seed and key: the same everywhere.

    Args:
        verdicts: all that have a second checker.
        n: how many are wanted.
        seed: another one draws another sample.
    """
    strata: dict[tuple[Hashable, ...], list[Verdict]] = {}
    for verdict in verdicts:
        strata.setdefault(verdict.stratum, []).append(verdict)
    counts = _allocate({name: len(rows) for name, rows in strata.items()}, n)
    checked = []
    for name, rows in sorted(strata.items(), key=lambda s: repr(s[0])):
        drawn = sorted(rows, key=lambda v: hashlib.sha256(f"{seed}\t{v.key}".encode()).digest())
        weight = len(rows) / counts[name]
        checked += [Checked(v, weight, second(v)) for v in drawn[: counts[name]]]
    return checked


def _allocate(sizes: Mapping[tuple[Hashable, ...], int], n: int) -> dict[tuple[Hashable, ...], int]:
    """One for each stratum, and what is left by largest remainders of their sizes less one."""
    left = max(0, min(n, sum(sizes.values())) - len(sizes))
    rest = sum(sizes.values()) - len(sizes)
    shares = {name: left * (size - 1) / rest if rest else 0.0 for name, size in sizes.items()}
    counts = {name: 1 + math.floor(share) for name, share in shares.items()}
    order = sorted(shares, key=lambda name: (math.floor(shares[name]) - shares[name], repr(name)))
    for name in order[: left - sum(counts.values()) + len(sizes)]:
        counts[name] += 1
    return counts


def estimate(checked: Sequence[Checked]) -> Disagreement:
    """The rate of disagreement of all verdicts that a sample stands for; see the head of this module."""
    judged = [c for c in checked if c.second is not None]
    whole, weight = (math.fsum(c.weight for c in some) for some in (checked, judged))
    rate = math.fsum(c.weight for c in judged if c.disagrees) / weight if judged else None
    effective = weight**2 / math.fsum(c.weight**2 for c in judged) if judged else 0.0
    low, high = numeric.wilson((rate or 0.0) * effective, effective)
    return Disagreement(
        verdicts=round(whole),
        sampled=len(checked),
        judged=len(judged),
        pairs=len({(str(c.verdict.gold), c.verdict.said) for c in judged}),
        disagreements=sum(c.disagrees for c in judged),
        cannot_say=max(0.0, 1 - weight / whole) if checked else 0.0,
        rate=rate,
        low=low,
        high=high,
    )


def second(verdict: Verdict) -> bool | None:
    """What the second checker says; None where it cannot, as where the stored answer may be cut."""
    said = verdict.said
    if said is None or len(said) >= verify.SHOWN:
        return None
    return expression(verdict.gold, said) if verdict.kind == "expression" else equal(verdict.gold, said)


def equal(gold: Any, said: str) -> bool | None:
    """`numeric.equal`, with a gold that may be a number."""
    return numeric.equal(str(gold), said)


def expression(problem: Mapping[str, Any] | str, said: str) -> bool | None:
    """Whether an expression solves a Countdown problem; None where it cannot be read.

    It is parsed and evaluated by `arithmetic`, which shares nothing with the checker of Countdown.

    Args:
        problem: `numbers`, `target`, and where they are limited `operators` and `use`; or that as JSON.
        said: the expression, with `= VALUE` behind it or not.
    """
    given = json.loads(problem) if isinstance(problem, str) else problem
    try:
        tree = parse(said.translate(_SIGNS).partition("=")[0])
    except Unreadable:
        return None
    numbers: list[Fraction] = []
    signs: set[str] = set()
    if not _leaves(tree, numbers, signs):
        return None
    used, there = Counter(numbers), Counter(Fraction(n) for n in given["numbers"])
    if used != there and not (given.get("use") == "some" and used <= there):
        return False
    if not signs <= set(given.get("operators") or _ARITHMETIC):
        return False
    try:
        return value(tree, {}) == Fraction(given["target"])
    except Unreadable as why:
        # A divisor of zero leaves it without a value; anything else is a limit of this evaluator.
        return False if isinstance(why.__context__, ZeroDivisionError) else None


def _leaves(node: Node, numbers: list[Fraction], signs: set[str]) -> bool:
    """Collect numbers and operators; False where a tree holds anything that Countdown does not have."""
    if node[0] == "num":
        numbers.append(node[1])
        return True
    if node[0] not in _ARITHMETIC:
        return False
    signs.add(node[0])
    return all(_leaves(part, numbers, signs) for part in node[1:])
