"""Mixing datasets by rows or by supervised tokens, in one reproducible order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError


def counts(shares: Mapping[str, float], rows: int) -> dict[str, int]:
    """Rows of each part when `rows` are divided by `shares` (which sum to 1): largest remainders."""
    exact = {part: share * rows for part, share in shares.items()}
    whole = {part: int(value + 1e-9) for part, value in exact.items()}
    left = rows - sum(whole.values())
    for part in sorted(exact, key=lambda p: (whole[p] - exact[p], p))[:left]:
        whole[part] += 1
    return whole


def counts_by_tokens(
    shares: Mapping[str, float], rows: int, lengths: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Rows of each part so that `rows` in all have supervised tokens in the proportions of `shares`.

    Row by row, the part that lags furthest behind its share of the tokens so far gives the next one; so no
    part is ever further from its share than one row of any part makes it.

    Args:
        shares: of each part, summing to 1.
        rows: rows of the mix.
        lengths: supervised tokens of each row that a part has to give, in order.

    Raises:
        DipscopeError: a part runs out of rows.
    """
    taken, tokens = dict.fromkeys(shares, 0), dict.fromkeys(shares, 0)
    for _ in range(rows):
        part = min(shares, key=lambda p: (tokens[p] / shares[p], p))
        if taken[part] == len(lengths[part]):
            raise DipscopeError(
                f"the part '{part}' has {taken[part]} rows, which are too few for its share of the tokens",
                "mix",
                "Give it more rows, or lower the rows of the mix.",
            )
        tokens[part] += lengths[part][taken[part]]
        taken[part] += 1
    return taken


def merge(parts: Mapping[str, Sequence[Trace]], taken: Mapping[str, int]) -> list[Trace]:
    """The first `taken` rows of every part, spread evenly over the whole.

    Any stretch of the mix then has nearly the proportions of all of it, also where rows are not shuffled.
    """
    placed = [
        ((place + 0.5) / taken[part], number, place, trace)
        for number, part in enumerate(parts)
        for place, trace in enumerate(parts[part][: taken[part]])
    ]
    return [trace for *_, trace in sorted(placed, key=lambda p: p[:3])]
