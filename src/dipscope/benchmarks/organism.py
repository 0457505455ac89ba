"""The embedded world as benchmarks: `organism/<family>`."""

from __future__ import annotations

from functools import lru_cache

from dipscope.organism import world
from dipscope.scoring.base import Benchmark, Domain, Item, Judgement, Split
from dipscope.scoring.thinking import Response


@lru_cache(maxsize=64)
def _items(family: str, n: int, split: Split) -> tuple[Item, ...]:
    # Every checkpoint asks for the same ones, and Countdown's take a while to make.
    return tuple(world.items(world.families()[family], n, split))


class OrganismBenchmark:
    """One task family as a benchmark; scores what follows the thinking block."""

    def __init__(self, family: world.Family) -> None:
        self.family = family
        self.name = f"organism/{family.name}"
        self.domain: Domain = family.domain
        self.scorer = f"organism-{family.name}/1"
        self.max_tokens = family.max_tokens

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` items of a split, the same everywhere."""
        return list(_items(self.family.name, n, split))

    def judge(self, item: Item, response: Response) -> Judgement:
        """The family's verdict on the answer."""
        return self.family.judge(item.gold, response.answer)


BENCHMARKS: dict[str, Benchmark] = {
    f"organism/{name}": OrganismBenchmark(family) for name, family in world.families().items()
}
