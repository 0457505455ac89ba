"""What published benchmarks have in common: a source or a local copy, and a protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from dipscope.benchmarks.items import Defaults, Source, choose, rows
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Domain, Item, Judgement, Split
from dipscope.scoring.thinking import Response

PROTOCOLS = ("strict", "paper")
REQUEST = r"Think step by step, and give your final answer in \boxed{}."
LONG = 32_768  # tokens of a response: the limit that the paper sets nearly everywhere


class Published(ABC):
    """A benchmark that others publish, under one of two protocols.

    `strict` scores what follows the thinking, and unclosed thinking has no answer. `paper` is what the
    paper's evaluation does, oddities included; docs/benchmarks.md has the two side by side.

    Args:
        path: a local file in the published layout, read instead of the source.
        protocol: `strict` or `paper`.

    Attributes:
        source: where the items are published.
        size: how many items the published set has.
        rule: the scoring rule and its version.
        defaults: how it is run where a study does not say otherwise.
    """

    name: str
    domain: Domain
    source: Source
    size: int
    rule: str
    max_tokens: int = LONG
    defaults: Defaults = Defaults()

    def __init__(self, path: Path | None = None, protocol: str = "strict") -> None:
        if protocol not in PROTOCOLS:
            raise DipscopeError(
                f"there is no protocol '{protocol}'", self.name, f"Protocols are {' and '.join(PROTOCOLS)}."
            )
        self.path, self.protocol = path, protocol
        self.scorer = f"{self.rule}+{protocol}"

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` items of a split; under the paper's protocol the test split is the whole set."""
        return choose(self._items, n, split, whole=self.protocol == "paper")

    @cached_property
    def _items(self) -> list[Item]:
        return [self.item(row) for row in rows(self.source, self.path)]

    @abstractmethod
    def item(self, row: dict[str, Any]) -> Item:
        """The item that a row of the published file is."""

    @abstractmethod
    def judge(self, item: Item, response: Response) -> Judgement:
        """The verdict on one response."""
