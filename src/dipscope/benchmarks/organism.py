"""The embedded world as benchmarks: `organism/<family>`."""

from __future__ import annotations

from dataclasses import dataclass, field

from dipscope.benchmarks.base import Benchmark, Domain, Item, Judgement, Split
from dipscope.organism import world
from dipscope.scoring.thinking import Response


@dataclass(frozen=True)
class OrganismBenchmark:
    """One task family as a benchmark; scores what follows the thinking block."""

    family: world.Family
    name: str = field(init=False)
    domain: Domain = field(init=False)
    scorer: str = field(init=False)
    max_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        for key, value in (
            ("name", f"organism/{self.family.name}"),
            ("domain", self.family.domain),
            ("scorer", f"organism-{self.family.name}/1"),
            ("max_tokens", self.family.max_tokens),
        ):
            object.__setattr__(self, key, value)

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` items of a split, the same everywhere."""
        return world.items(self.family, n, split)

    def judge(self, item: Item, response: Response) -> Judgement:
        """The family's verdict on the answer."""
        return self.family.judge(item.gold, response.answer)


BENCHMARKS: dict[str, Benchmark] = {
    f"organism/{name}": OrganismBenchmark(family) for name, family in world.families().items()
}
