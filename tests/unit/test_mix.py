"""Mixes keep their shares, by rows and by tokens, in every stretch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.data import mix
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError


def normal(weights):
    return {f"p{i}": w / sum(weights) for i, w in enumerate(weights)}


shares = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(normal)


def table(part, rows):
    return [Trace(f"{part}-{i}", f"q{i}", "w", "w" * (i + 1)) for i in range(rows)]


@given(shares, st.integers(1, 500))
def test_counts_sum_up_and_are_within_one_row_of_their_share(parts, rows):
    taken = mix.counts(parts, rows)
    assert sum(taken.values()) == rows
    assert all(abs(taken[p] - share * rows) < 1 + 1e-6 for p, share in parts.items())


@given(shares, st.integers(1, 120), st.data())
def test_tokens_are_within_one_row_of_their_share(parts, rows, data):
    lengths = {p: data.draw(st.lists(st.integers(1, 400), min_size=rows, max_size=rows)) for p in parts}
    taken = mix.counts_by_tokens(parts, rows, lengths)
    assert sum(taken.values()) == rows
    tokens = {p: sum(lengths[p][: taken[p]]) for p in parts}
    whole, longest = sum(tokens.values()), max(max(row) for row in lengths.values())
    for part, share in parts.items():
        # It lags by no row of its own or is ahead by none: the pace of the slowest bounds both.
        assert tokens[part] - share * whole <= longest
        assert share * whole - tokens[part] <= longest * len(parts)


def test_a_part_that_runs_out_is_named():
    with pytest.raises(DipscopeError, match="'b' has 2 rows"):
        mix.counts_by_tokens({"a": 0.5, "b": 0.5}, 10, {"a": [10] * 10, "b": [1, 1]})


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_stretch_has_nearly_the_shares_of_the_whole(first, second):
    parts = {"a": table("a", 60), "b": table("b", 60)}
    merged = mix.merge(parts, {"a": first, "b": second})
    assert [t.id for t in merged if t.id.startswith("a")] == [t.id for t in parts["a"][:first]]
    assert [t.id for t in merged if t.id.startswith("b")] == [t.id for t in parts["b"][:second]]
    for stop in range(1, len(merged) + 1):
        seen = sum(t.id.startswith("a") for t in merged[:stop])
        assert abs(seen - stop * first / (first + second)) <= 1.5
