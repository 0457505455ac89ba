"""Countdown: problems, traces and checker, against brute force and Python's own arithmetic."""

import ast
import operator
import random
import re
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data import countdown
from dipscope.data.countdown import Options, Problem
from dipscope.errors import DipscopeError

_OPS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def by_python(text: str) -> int:
    """An independent reading of an expression, through Python's parser."""

    def walk(node: ast.AST) -> int:
        if isinstance(node, ast.BinOp):
            return _OPS[type(node.op)](walk(node.left), walk(node.right))
        assert isinstance(node, ast.Constant)
        return node.value

    return walk(ast.parse(text, mode="eval").body)


def test_splits_are_disjoint_whole_and_sized_as_promised():
    pools = countdown.problems()
    everything = [p for rows in pools.values() for p in rows]
    assert len(everything) == len(set(everything)) > 3_000
    assert sum(map(len, countdown.problems(Options(largest=20)).values())) > 10_000
    assert 0.08 < len(pools["test"]) / len(everything) < 0.12
    assert 0.03 < len(pools["dev"]) / len(everything) < 0.07
    assert all(list(p.numbers) == sorted(p.numbers) for p in everything)


def test_problems_are_those_that_brute_force_solves():
    found = {p for rows in countdown.problems(Options(largest=6)).values() for p in rows}
    rng = random.Random(0)
    for _ in range(150):
        numbers = tuple(sorted(rng.choices(range(1, 7), k=3)))
        target = rng.randint(10, 99)
        values = set()
        for a, b, c in permutations(numbers):
            for f in _OPS.values():
                for g in _OPS.values():
                    values |= {g(f(a, b), c), g(c, f(a, b))}
        assert (Problem(numbers, target) in found) == (target in values)


def test_drawing_is_distinct_reproducible_nested_and_fails_loudly():
    drawn = countdown.draw(500, "train", 3)
    assert len(set(drawn)) == 500
    assert countdown.draw(200, "train", 3) == drawn[:200]
    assert countdown.draw(500, "train", 4) != drawn
    with pytest.raises(DipscopeError, match="problems, not 5000"):
        countdown.draw(5000, "dev", 0)


def test_traces_are_verified_train_problems_whose_every_statement_is_true():
    traces = countdown.traces(300, 1)
    train = set(countdown.problems()["train"])
    assert all(t.verdict == "correct" and Problem.from_gold(t.gold) in train for t in traces)
    assert len({t.query for t in traces}) == 300
    for trace in traces:
        target = Problem.from_gold(trace.gold).target
        for left, sign, right in re.findall(r"(\d+ [-+*] \d+) ([=>]) (\d+)", trace.response):
            value = by_python(left)
            assert value == int(right) if sign == "=" else value > 99
        tried = [line for line in trace.response.splitlines() if line.startswith("Try")]
        assert 1 <= len(tried) <= 4
        assert [line.endswith("yes.") for line in tried] == [False] * (len(tried) - 1) + [True]
        assert all(f"= {target}" not in line.partition(":")[2] for line in tried[:-1])
        checked = re.search(r"\nCheck: (.*) = (\d+)\. Good\.\n", trace.response)
        assert by_python(checked[1]) == int(checked[2]) == target


def test_traces_are_short_and_stay_in_the_closed_vocabulary():
    pieces = [re.findall(r"</?think>|\n|\d+|[A-Za-z]+|[^\s\w]", t.response) for t in countdown.traces(500, 0)]
    assert sum(map(len, pieces)) / len(pieces) < 115
    assert max(map(len, pieces)) < 200
    words = {p for row in pieces for p in row}
    assert all(int(w) <= 99 for w in words if w.isdigit())
    assert len([w for w in words if not w.isdigit()]) < 35


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Answer: (5 - 2) * 9", "correct"),
        ("<think>\nGoal.\n</think>\nAnswer: 9 × (5 − 2).", "correct"),
        ("Answer: (5 - 2) * 9 = 27", "correct"),
        ("Answer: 1\nAnswer: (5 - 2) * 9", "correct"),
        ("Answer: (5 - 2) * 9 = 28", "missing"),
        ("Answer: 5 - 2 * 9", "wrong"),
        ("Answer: 27", "wrong"),
        ("Answer: (5 - 2) * 9 * 1", "wrong"),
        ("Answer: (9 - 5) * 9 - 9", "wrong"),
        ("Answer: __import__('os')", "missing"),
        ("Answer: (5 - 2", "missing"),
        ("Answer: ", "missing"),
        ("(5 - 2) * 9", "missing"),
        ("<think>\nAnswer: (5 - 2) * 9", "missing"),
    ],
)
def test_checker(answer, verdict):
    assert countdown.verify(Problem((2, 5, 9), 27), answer).verdict == verdict


expressions = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner, st.booleans()).map(
        lambda t: f"({t[0]} {t[1]} {t[2]})" if t[3] else f"{t[0]}{t[1]} {t[2]}"
    ),
    max_leaves=12,
)


@given(expressions)
def test_parser_agrees_with_python(text):
    value, used = countdown.evaluate(text)
    assert value == by_python(text)
    assert sorted(used) == sorted(map(int, re.findall(r"\d+", text)))


@given(st.text(alphabet="0123456789+-*()= .×x\n", max_size=60))
def test_parser_never_raises(text):
    countdown.evaluate(text)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_teacher_tries_no_more_branches_than_allowed(seed, most):
    rng = random.Random(seed)
    problem = rng.choice(countdown.problems()["train"])
    text = countdown.respond(problem.numbers, problem.target, rng, most)
    assert 1 <= text.count("\nTry ") <= most
    assert countdown.verify(problem, text).verdict == "correct"


def test_four_numbers_work_too():
    traces = countdown.traces(20, 0, {"numbers": 4, "largest": 9})
    assert all(t.verdict == "correct" and len(Problem.from_gold(t.gold).numbers) == 4 for t in traces)


@pytest.mark.parametrize("options", [{"numbers": 5}, {"largest": 0}, {"lagest": 9}, {"largest": "nine"}])
def test_bad_options_are_refused(options):
    with pytest.raises(DipscopeError):
        countdown.traces(1, 0, options)
