"""What a search for benchmark passages in traces finds: matches, and phrases too common to be any."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal["exact", "near", "13-gram", "8-gram"]
KINDS: tuple[Kind, ...] = ("exact", "near", "13-gram", "8-gram")  # the strongest evidence first
Where = Literal["prompt", "response"]


@dataclass(frozen=True)
class Match:
    """A passage of a benchmark in a trace.

    Attributes:
        trace: id of the trace.
        benchmark: where the passage belongs.
        passage: its number there, from 0.
        kind: how it was found, see the module's rules.
        where: `prompt` (with the turns before it) or `response`.
        words: the passage's words that were found, in normal form; the longest run of them for n-grams, the
            whole passage otherwise.
        share: how much of the passage was found: 1 for exact, the Jaccard similarity for near, the share of
            its 8-grams for n-grams.
    """

    trace: str
    benchmark: str
    passage: int
    kind: Kind
    where: Where
    words: str
    share: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Boilerplate:
    """A phrase of a benchmark that stands in too many items or traces to be evidence.

    Attributes:
        words: in normal form, with # for every number.
        benchmark: a benchmark that has it.
        items: passages that have it, at most over its 8-grams.
        queries: queries in whose traces it stands, at most over its 8-grams.
    """

    words: str
    benchmark: str
    items: int
    queries: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        matches: in the order of the traces, prompts before responses.
        boilerplate: phrases that were left out, the most frequent first.
        traces: rows that were searched.
        queries: different questions among them.
        words: words that were searched.
        passages: passages searched for, by benchmark.
    """

    matches: tuple[Match, ...]
    boilerplate: tuple[Boilerplate, ...]
    traces: int
    queries: int
    words: int
    passages: Mapping[str, int]

    def counts(self) -> dict[str, dict[Kind, int]]:
        """Traces with a match, by benchmark and strongest kind there; benchmarks without any are listed."""
        strongest: dict[tuple[str, str], Kind] = {}
        for m in self.matches:
            before = strongest.get((m.benchmark, m.trace), m.kind)
            strongest[m.benchmark, m.trace] = min(before, m.kind, key=KINDS.index)
        table = {name: dict.fromkeys(KINDS, 0) for name in self.passages}
        for (benchmark, _), kind in strongest.items():
            table[benchmark][kind] += 1
        return table

    def only(self, kinds: Collection[str]) -> Found:
        """The same outcome with matches of some kinds."""
        return replace(self, matches=tuple(m for m in self.matches if m.kind in kinds))

    def strongest(self) -> list[Match]:
        """The matches, the strongest kinds first and, of a kind, those that cover most of their passage."""
        return sorted(self.matches, key=lambda m: (KINDS.index(m.kind), -m.share))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "traces": self.traces,
            "queries": self.queries,
            "words": self.words,
            "passages": dict(self.passages),
            "counts": self.counts(),
            "matched_traces": len({m.trace for m in self.matches}),
            "matches": [m.as_dict() for m in self.matches],
            "boilerplate": [b.as_dict() for b in self.boilerplate],
        }
