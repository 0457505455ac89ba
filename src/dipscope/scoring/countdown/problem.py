"""A countdown problem in canonical form, its gold answer, and the split it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dipscope.scoring.countdown.rules import OPERATORS

Split = Literal["train", "dev", "test"]
Use = Literal["all", "some"]


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """A problem in canonical form: the numbers are sorted. Two problems are equal when these are.

    Attributes:
        numbers: sorted.
        target: what they are to make.
        operators: what an answer may use.
        use: `all`: an answer uses each number once; `some`: at most once.
    """

    numbers: tuple[int, ...]
    target: int
    operators: str = field(default=OPERATORS, compare=False)
    use: Use = field(default="all", compare=False)

    @property
    def key(self) -> str:
        """Canonical name, for example `2-5-9=27`."""
        return f"{'-'.join(map(str, self.numbers))}={self.target}"

    @property
    def gold(self) -> str:
        """The problem as JSON, which is all a checker needs.

        Operators are named where they are neither all four nor `+-*`: the gold of both is that of the
        published tables, numbers and target, and leaves an answer all four.
        """
        value: dict[str, Any] = {"numbers": list(self.numbers), "target": self.target}
        if self.operators not in (OPERATORS, "+-*"):
            value["operators"] = self.operators
        if self.use == "some":
            value["use"] = "some"
        return json.dumps(value)

    @classmethod
    def from_gold(cls, gold: str | Mapping[str, Any]) -> Problem:
        """The problem that `gold` describes, as JSON or as the published mapping of numbers and target.

        Raises:
            ValueError, TypeError, KeyError: it describes none.
        """
        value = json.loads(gold) if isinstance(gold, str) else gold
        numbers = tuple(sorted(_integer(n) for n in value["numbers"]))
        if not numbers:
            raise ValueError("no numbers")
        use: Use = "some" if value.get("use") == "some" else "all"
        return cls(numbers, _integer(value["target"]), str(value.get("operators") or OPERATORS), use)


def _integer(value: Any) -> int:
    """Tables hold whole numbers as floats too."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return int(value)


def split_of(key: str) -> Split:
    """Split of a canonical problem by hash: 10 % test, 5 % dev, the rest train."""
    bucket = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100
    return "test" if bucket < 10 else "dev" if bucket < 15 else "train"
