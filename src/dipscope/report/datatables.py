"""What is said of a data set in tables, for the card and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dipscope.data.checking.check import PARTS, Stats
from dipscope.data.checking.matches import KINDS
from dipscope.data.checking.spread import QUANTILES, Spread
from dipscope.report.words import percent

_HEADS = tuple({0: "min", 50: "median", 100: "max"}.get(q, f"{q} %") for q in QUANTILES)
LANGUAGES = 5  # that are named; the rest is summed


@dataclass(frozen=True)
class Grid:
    """A table: its head, its rows, and how many columns at the left are names rather than numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1

    def without(self, column: int) -> Grid:
        """The table without one of its columns of names."""
        rows = tuple(row[:column] + row[column + 1 :] for row in self.rows)
        return Grid(self.head[:column] + self.head[column + 1 :], rows, self.names - 1)

    def turned(self) -> Grid:
        """The first row as a column beside the heads, without the variant's name."""
        return Grid(("", ""), tuple(zip(self.head[1:], self.rows[0][1:], strict=True)), 2)


def overview(stats: Mapping[str, Stats]) -> Grid:
    """A row for each variant: how many rows it has and what share of them is as it should be."""
    head = ("", "rows", "queries", "with reasoning", "closed", "final answer", "looping", "repeated response",
            "learned")  # fmt: skip
    return Grid(
        head,
        tuple(
            (
                name, number(s.rows), number(s.queries), share(s.reasoned, s.rows), share(s.closed, s.rows),
                share(s.answered, s.rows), share(s.looping, s.rows), share(s.repeated_responses, s.rows),
                f"{number(s.response.total)} {unit(s)}",
            )
            for name, s in stats.items()
        ),
    )  # fmt: skip


def lengths(stats: Mapping[str, Stats]) -> Grid:
    """Quantiles and mean of the length of each part; variants that agree share a row."""
    rows = [
        (part, names, *cells)
        for part in PARTS
        for names, cells in _grouped({name: _cells(s.lengths[part], number) for name, s in stats.items()})
    ]
    return Grid(("", "", *_HEADS, "mean"), tuple(rows), 2)


def repetition(stats: Mapping[str, Stats]) -> Grid:
    """Quantiles and mean, over the responses, of each measure of repetition."""
    measures = {
        "compression": {name: s.compression for name, s in stats.items()},
        "8-gram overlap": {name: s.overlap for name, s in stats.items()},
    }
    rows = [
        (label, names, *cells)
        for label, spreads in measures.items()
        for names, cells in _grouped({name: _cells(s, "{:.2f}".format) for name, s in spreads.items()})
    ]
    return Grid(("", "", *_HEADS, "mean"), tuple(rows), 2)


def kinds(stats: Mapping[str, Stats]) -> Grid:
    """Languages, who wrote the rows, stored verdicts, why the writers stopped; agreeing variants together."""
    head = ("language (sample)", "origin", "stored verdict", "finish")
    said = {
        name: tuple(_shares(c) for c in (s.languages, s.origins, s.verdicts, s.finishes))
        for name, s in stats.items()
    }
    rows = tuple((names, *cells) for names, cells in _grouped(said))
    return Grid(("", *head), rows, 1 + len(head))


def stages(counts: Sequence[tuple[str, int]], queries: Mapping[str, int] | None = None) -> Grid:
    """A row for each stage of a build: the responses it left, their share of the first stage, the queries.

    Args:
        counts: responses by stage, in order.
        queries: queries by stage; no column without them.
    """
    whole = counts[0][1]
    rows = [(stage, number(n), share(n, whole)) for stage, n in counts]
    if not queries:
        return Grid(("stage", "responses", "of the first"), tuple(rows))
    each = [number(queries[stage]) if stage in queries else "–" for stage, _ in counts]
    head = ("stage", "responses", "of the first", "queries")
    return Grid(head, tuple((*row, n) for row, n in zip(rows, each, strict=True)))


def decontamination(found: Mapping[str, Any]) -> Grid:
    """A row for each benchmark: its passages, and the traces in which one was found, by kind.

    Args:
        found: `matches.Found.as_dict()`.
    """
    rows = []
    for benchmark, counts in found["counts"].items():
        each = [counts.get(kind, 0) for kind in KINDS]
        rows.append((benchmark, number(found["passages"][benchmark]), *map(number, each), number(sum(each))))
    return Grid(("benchmark", "passages", *KINDS, "traces"), tuple(rows))


def number(value: float) -> str:
    """A count or a length with thousands apart; small means keep a decimal."""
    return (
        f"{value:.1f}" if isinstance(value, float) and 0 < abs(value) < 100 and value % 1 else f"{value:,.0f}"
    )


def share(part: int, whole: int) -> str:
    """A percentage; none, all and almost all keep apart from each other."""
    if not whole:
        return "–"
    said = percent(part / whole)
    if said == "100.0 %":
        return "100 %" if part == whole else "> 99.9 %"
    if said == "0.0 %":
        return "0 %" if not part else "< 0.1 %"
    return said


def unit(stats: Stats) -> str:
    """`tokens` or `words`."""
    return "tokens" if stats.unit.startswith("tokens") else stats.unit


def _cells(spread: Spread, shown: Callable[[float], str]) -> tuple[str, ...]:
    quantiles = spread.quantiles or (0.0,) * len(QUANTILES)
    return (*map(shown, quantiles), shown(spread.mean))


def _grouped(rows: Mapping[str, tuple[str, ...]]) -> list[tuple[str, tuple[str, ...]]]:
    """Names whose rows show the same joined, in the order of their first; `all` where all do."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, cells in rows.items():
        names.setdefault(cells, []).append(name)
    if len(names) == 1 < len(rows):
        return [("all", next(iter(names)))]
    return [(", ".join(group), cells) for cells, group in names.items()]


def _shares(counts: Mapping[str, int]) -> str:
    whole = sum(counts.values())
    first = list(counts.items())[:LANGUAGES]
    said = [f"{name or 'not stated'} {share(n, whole)}" for name, n in first]
    rest = whole - sum(n for _, n in first)
    return ", ".join([*said, *([f"other {share(rest, whole)}"] if rest else [])]) or "–"
