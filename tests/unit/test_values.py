"""Values that cross between processes: all plain data arrives as it was, and nothing else does."""

import datetime
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.scoring.sandbox import values

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(PLAIN, lambda x: st.tuples(x, x) | st.frozensets(x, max_size=3), max_leaves=5)
NESTED = st.recursive(
    HASHABLE,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(HASHABLE, x, max_size=3) | st.tuples(x),
    max_leaves=8,
)


def kinds(value):
    """The types of a value and of all in it."""
    if isinstance(value, dict):
        return dict, [(kinds(k), kinds(v)) for k, v in value.items()]
    if isinstance(value, (frozenset, set)):
        return type(value), sorted(str(kinds(v)) for v in value)
    return (type(value), [kinds(v) for v in value]) if isinstance(value, (list, tuple)) else type(value)


@given(NESTED)
def test_plain_data_arrives_as_it_was(value):
    back = values.loads(values.dumps(value))
    assert back == value and kinds(back) == kinds(value)


@pytest.mark.parametrize(
    "value",
    [
        1 << 20_000, -(1 << 63), 1j, {1, "a"}, Decimal("1.50"), Fraction(1, 3), int, dict, float("inf"), b"x",
        datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_rarer_data_too(value):
    back = values.loads(values.dumps(value))
    assert back == value and type(back) is type(value)


def test_subclasses_arrive_as_what_they_derive_from():
    point = namedtuple("point", "x y")(1, 2)
    for value, plain in ((point, (1, 2)), (Counter("aab"), {"a": 2, "b": 1}), (OrderedDict(a=1), {"a": 1})):
        back = values.loads(values.dumps(value))
        assert back == plain and type(back) is type(plain)
    assert list(values.loads(values.dumps(x for x in range(3)))) == [0, 1, 2]
    assert list(values.loads(values.dumps({1: 2}.keys()))) == [1]


def test_other_objects_stay_behind():
    kept = []
    line = values.dumps([deque(), 1, print], lambda value: kept.append(value) or len(kept) - 1)
    assert values.loads(line, lambda number: ("kept", number)) == [("kept", 0), 1, ("kept", 1)]
    assert kept == [deque(), print]
    with pytest.raises(TypeError, match="deque"):
        values.dumps([deque()])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"x": 1}',
        '{"i": 3}',
        '{"k": "print"}',
        '{"Fraction": "1e9999999999"}',
        '{"Fraction": "1/0"}',
        '{"k": "no"}',
        '{"h": 1}',
        "[" * 100_000,
        '{"d": [1]}',
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_value_is_refused(text):
    with pytest.raises(ValueError):
        values.loads(text)
