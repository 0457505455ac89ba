"""The second pass over a pool: chosen responses are read, and made into every variant."""

from __future__ import annotations

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dipscope.data.building.pool import UNJUDGED, VERDICTS, Chosen, Pool, Report
from dipscope.data.building.verdict_cache import Judge
from dipscope.data.shaping import variants
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Judgement
from dipscope.study import Variant


class Table(Protocol):
    """What is read: `sources.Table`."""

    @property
    def rows(self) -> int:
        """Rows of the files."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the source."""
        ...

    def scan(self, look: Callable[[Iterator[Trace]], Iterator[Pool]], workers: int = 1) -> Iterator[Pool]:
        """What `look` makes of the responses, part by part."""
        ...

    def take(self, ordinals: Sequence[int]) -> Iterator[Trace]:
        """The responses at ascending places of the stream."""
        ...


class Maker:
    """Makes variants of chosen responses. What was kept is held compressed; variants are made when asked for.

    Args:
        table: the pool.
        wanted: the variants.
        seed: of what they draw.
        judge: tells whether a near miss is wrong.
        verdicts: (responses,) index in `pool.VERDICTS`.

    Attributes:
        tried: queries of which the variants were tried.
        refused: by variant, why it could not be made of how many of them.
    """

    def __init__(
        self, table: Table, wanted: Sequence[Variant], seed: int, judge: Judge, verdicts: NDArray[np.uint8]
    ) -> None:
        self._table, self._wanted, self._seed, self._verdicts = table, wanted, seed, verdicts
        self._judge = judge
        self._held: dict[int, tuple[Trace, bytes]] = {}  # without its response, and that
        self.tried = 0
        self.refused: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def read(self, chosen: Iterable[Chosen]) -> Iterator[Trace]:
        """The responses that the variants of these queries are made of, in the order of the table."""
        return self._table.take(self._ordinals(chosen))

    def keep(self, candidates: Sequence[Chosen], rows: int | None, report: Report = None) -> list[Chosen]:
        """The first `rows` candidates of which every variant can be made, or all such."""
        kept: list[Chosen] = []
        wanted = len(candidates) if rows is None else rows
        while len(kept) < wanted and self.tried < len(candidates):
            batch = candidates[self.tried : self.tried + wanted - len(kept)]
            ordinals = self._ordinals(batch)
            for ordinal, trace in zip(ordinals, self._table.take(ordinals), strict=True):
                packed = zlib.compress(trace.response.encode("utf-8", "surrogatepass"), 1)
                self._held[ordinal] = replace(trace, response=""), packed
            for chosen in batch:
                self.tried += 1
                if self._possible(chosen):
                    kept.append(chosen)
                else:
                    for ordinal in self._ordinals([chosen]):
                        del self._held[ordinal]
                if report:
                    report(len(kept), wanted, "rows made")
        return kept

    def table(self, variant: Variant, kept: Iterable[Chosen]) -> Iterator[Trace]:
        """The rows of one variant, made anew each time."""
        return (self._make(variant, chosen) for chosen in kept)

    def _possible(self, chosen: Chosen) -> bool:
        possible = True
        for variant in self._wanted:
            try:
                self._make(variant, chosen)
            except DipscopeError as error:
                if error.fault:
                    raise
                self.refused[variant][error.what] += 1
                possible = False
        return possible

    def _make(self, variant: Variant, chosen: Chosen) -> Trace:
        base = self._text(chosen.verified if self._verified else chosen.unverified)
        how: str = variant
        if variant == "unverified":
            made = self._other(base, chosen.unverified)
        elif variant == "wrong_answer" and chosen.wrong >= 0:
            made, how = self._other(base, chosen.wrong), "wrong_answer from the pool"
        else:
            base = replace(base, verdict="correct")
            made = variants.apply(
                variant, base, random.Random(f"{self._seed} {variant} {base.id}"), self._says
            )
            how = "wrong_answer by a near miss" if variant == "wrong_answer" else variant
        return replace(made, source=f"{made.source}; {how}")

    def _other(self, base: Trace, ordinal: int) -> Trace:
        """Another response to the same query, which is asked in the same words."""
        verdict = self._verdicts[ordinal]
        return replace(
            self._text(ordinal),
            prompt=base.prompt,
            context=base.context,
            gold=base.gold,
            verdict="" if verdict == UNJUDGED else VERDICTS[verdict],
        )

    def _text(self, ordinal: int) -> Trace:
        trace, packed = self._held[ordinal]
        return replace(trace, response=zlib.decompress(packed).decode("utf-8", "surrogatepass"))

    def _says(self, gold: str, answer: str) -> Judgement:
        return next(iter(self._judge.judge([(gold, answer)])))

    @property
    def _verified(self) -> bool:
        return needs_verified(self._wanted)

    def _ordinals(self, chosen: Iterable[Chosen]) -> list[int]:
        used = set()
        for c in chosen:
            used |= {c.verified} if self._verified else set()
            used |= {c.unverified} if "unverified" in self._wanted else set()
            used |= {c.wrong} if "wrong_answer" in self._wanted else set()
        return sorted(used - {-1})


def needs_verified(wanted: Iterable[Variant]) -> bool:
    """Whether any of the variants is made of a verified response."""
    return any(variant != "unverified" for variant in wanted)
