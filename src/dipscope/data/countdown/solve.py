"""The exact solver: what a multiset of numbers reaches, one way to a target, and how many there are.

Values are kept for every part of the numbers (a memo over sub-multisets), and a target is met in the middle:
for each split in two, each value of one part names the values that the other would need.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations

from dipscope.scoring.countdown.rules import Number, Rule, apart

Numbers = tuple[int, ...]
Part = tuple[Numbers, Number]  # some of the numbers and a value that they make
Hit = tuple[str, Part, Part]
Tree = int | tuple[str, "Tree", "Tree"]
# An expression up to commutativity and associativity: a number, a sum of added and subtracted terms, or a
# product of factors and divisors; terms are sorted, no term of a sum is a sum, no factor a product.
Form = tuple[str, tuple["Form", ...], tuple["Form", ...]] | tuple[str, int]
_HELD = 2_000_000  # values in the memo before it is emptied, about 150 MB


class Solver:
    """Solves by one rule; keeps what it found about parts of numbers for the next problem.

    Without a limit the inner results may be 0. They may be negative only where `-` comes without `+`: with
    both, every expression with a negative inner result has a twin without one.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._signed = rule.limit is None and "-" in rule.operators and "+" not in rule.operators
        self._memo: dict[Numbers, frozenset[Number]] = {}
        self._held = 0

    def values(self, numbers: Sequence[int]) -> set[Number]:
        """Everything that the numbers make, each used once, or at most once where the rule says so."""
        return {v for chosen in self._choices(numbers) for v in self._made(chosen)}

    def reaches(self, numbers: Sequence[int], target: int) -> bool:
        """Whether there is an expression with this value."""
        return any(
            chosen == (target,) or next(self._hits(chosen, target), None) is not None
            for chosen in self._choices(numbers)
        )

    def tree(self, numbers: Sequence[int], target: Number, rng: random.Random) -> Tree | None:
        """One expression with this value, drawn among the last steps that lead to it; None if there is none.

        With six numbers the uneven splits are looked at only where no other works.
        """
        if len(numbers) == 1:
            return numbers[0] if numbers[0] == target else None
        hits: list[Hit] = []
        for hit in self._hits(tuple(sorted(numbers)), target):
            # Splits come from the most even one on, so the first uneven one ends the even ones.
            if len(numbers) > 5 and hits and min(len(hit[1][0]), len(hit[2][0])) == 1:
                break
            hits.append(hit)
        if not hits:
            return None
        sign, left, right = rng.choice(sorted(hits))
        one, other = self.tree(*left, rng), self.tree(*right, rng)
        return None if one is None or other is None else (sign, one, other)

    def count(self, numbers: Sequence[int], target: int, at_most: int | None = None) -> int:
        """Number of distinct solutions.

        Two expressions are the same solution when they differ only in the order or the grouping of sums and
        products: `9 * (5 - 2)` and `(5 - 2) * 9`, `5 + 2 + 9` and `9 + (5 + 2)`, `9 - (5 - 2)` and
        `9 + 2 - 5`. Equal numbers are not told apart.

        Args:
            numbers: of the problem.
            target: of the problem.
            at_most: stop as soon as there are more; the result is then one more than this.
        """
        known: dict[Part, frozenset[Form]] = {}
        found: set[Form] = set()
        for chosen in self._choices(numbers):
            if chosen == (target,):
                found.add(("n", target))
            for hit in self._hits(chosen, target):
                found |= self._joined(hit, known)
                if at_most is not None and len(found) > at_most:
                    return at_most + 1
        return len(found)

    def _choices(self, numbers: Sequence[int]) -> list[Numbers]:
        """The sub-multisets that an expression may be made of."""
        whole = tuple(sorted(numbers))
        if not self.rule.some:
            return [whole]
        return sorted({c for size in range(1, len(whole) + 1) for c in combinations(whole, size)})

    def _inner(self, numbers: Numbers) -> frozenset[Number]:
        """The values of a part that a further step may go on from."""
        if len(numbers) == 1:
            return frozenset(numbers)
        known = self._memo.get(numbers)
        if known is None:
            known = frozenset(filter(self.rule.inner, self._made(numbers)))
            if self._held > _HELD:
                self._memo.clear()
                self._held = 0
            self._memo[numbers] = known
            self._held += len(known)
        return known

    def _made(self, numbers: Numbers) -> set[Number]:
        if len(numbers) == 1:
            return set(numbers)
        found: set[Number] = set()
        for left, right in parts(numbers):
            ones, others = self._inner(left), self._inner(right)
            for sign in self.rule.operators:
                found.update(self._results(sign, ones, others))
        return found

    def _results(self, sign: str, ones: Iterable[Number], others: Iterable[Number]) -> set[Number]:
        if sign == "+":
            return {a + b for a in ones for b in others}
        if sign == "*":
            return {a * b for a in ones for b in others}
        if sign == "-":
            found = {a - b for a in ones for b in others}
            return {s * v for v in found for s in (1, -1)} if self._signed else {apart(v, 0) for v in found}
        pairs = [(a, b) for a in ones for b in others]
        quotients = [self._ratio(a, b) for a, b in pairs] + [self._ratio(b, a) for a, b in pairs]
        return {q for q in quotients if q is not None}

    def _ratio(self, a: Number, b: Number) -> Number | None:
        """The quotient, or None where the rule has none."""
        if not b:
            return None
        if isinstance(a, int) and isinstance(b, int):
            whole, rest = divmod(a, b)
            if not rest:
                return whole
            return None if self.rule.whole else Fraction(a, b)
        quotient = Fraction(a) / Fraction(b)
        return quotient.numerator if quotient.denominator == 1 else quotient

    def _hits(self, numbers: Numbers, target: Number) -> Iterator[Hit]:
        """Every last step to the target: its operator and what stands on either side."""
        for left, right in parts(numbers) if len(numbers) > 1 else ():
            ones, others = self._inner(left), self._inner(right)
            if len(ones) > len(others):
                left, right, ones, others = right, left, others, ones
            for a in ones:
                for sign, first, b in self._needed(a, target, others):
                    if b in others:
                        one, other = (left, a), (right, b)
                        yield (sign, one, other) if first else (sign, other, one)

    def _needed(
        self, a: Number, target: Number, others: frozenset[Number]
    ) -> Iterator[tuple[str, bool, Number]]:
        """The operators by which `a` and a number b make the target, whether `a` stands first, and b."""
        signs = self.rule.operators
        if "+" in signs:
            yield "+", True, target - a
        if "-" in signs:
            yield "-", True, a - target
            yield "-", False, a + target
        if "*" in signs:
            if a:
                b = self._ratio(target, a)
                if b is not None:
                    yield "*", True, b
            elif not target:
                yield from (("*", True, b) for b in others)
        if "/" in signs:
            if target and a:
                b = self._ratio(a, target)
                if b is not None:
                    yield "/", True, b
            elif not target and not a:
                yield from (("/", True, b) for b in others if b)
            if a:
                yield "/", False, a * target

    def _forms(self, part: Part, known: dict[Part, frozenset[Form]]) -> frozenset[Form]:
        numbers, value = part
        if len(numbers) == 1:
            return frozenset({("n", numbers[0])})
        if part not in known:
            forms: set[Form] = set()
            for hit in self._hits(numbers, value):
                forms |= self._joined(hit, known)
            known[part] = frozenset(forms)
        return known[part]

    def _joined(self, hit: Hit, known: dict[Part, frozenset[Form]]) -> set[Form]:
        sign, left, right = hit
        others = self._forms(right, known)
        return {_join(sign, one, other) for one in self._forms(left, known) for other in others}


def _join(sign: str, one: Form, other: Form) -> Form:
    kind = "s" if sign in "+-" else "p"
    (plus, minus), (more, less) = _terms(kind, one), _terms(kind, other)
    if sign in "-/":
        more, less = less, more
    return kind, tuple(sorted(plus + more)), tuple(sorted(minus + less))


def _terms(kind: str, form: Form) -> tuple[tuple[Form, ...], tuple[Form, ...]]:
    return (form[1], form[2]) if form[0] == kind and len(form) == 3 else ((form,), ())


def parts(numbers: Numbers) -> list[tuple[Numbers, Numbers]]:
    """Every way to part a multiset in two, each once, the most even ones first."""
    found = dict.fromkeys(
        tuple(sorted((tuple(numbers[i] for i in left), tuple(numbers[i] for i in right))))
        for left, right in _places(len(numbers))
    )
    return [(left, right) for left, right in found]


@cache
def _places(n: int) -> list[tuple[Numbers, Numbers]]:
    return [
        (left, tuple(i for i in range(n) if i not in left))
        for size in range(n // 2, 0, -1)
        for left in combinations(range(n), size)
        if 2 * size < n or 0 in left
    ]
