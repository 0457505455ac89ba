"""Countdown: problems of chosen difficulty, how they are asked, and the traces of the embedded world."""

import hashlib
import json
import operator
import random
import re
import sys
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data import countdown
from dipscope.data.countdown import Options, Problem
from dipscope.errors import DipscopeError

sys.path.insert(0, str(Path(__file__).parents[1]))
from countdown_brute import by_python

_OPS = (operator.add, operator.sub, operator.mul)
HARD = {"numbers": "3-5", "largest": 100, "target": "100-999", "operators": "+-*/"}


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize(
    ("rows", "seed", "options", "expected"),
    [
        (200, 5, {}, "c5f31be4e7e111a8a164797ecee5fabd4f668beacb592d2de1437c8003b35f0f"),
        (
            50,
            0,
            {"numbers": 4, "largest": 9},
            "c5401665a89d16fcd62a4a36ce6c226c836e4e8671ed9f39faed2dff4c629aa8",
        ),
        (
            64,
            2,
            {"largest": 40, "max_branches": 1},
            "34472394b95342843e1ccbbaa87e0ff6bd1d6d0414092a9f64ee42bfbe572b15",
        ),
    ],
)
def test_traces_of_the_embedded_world_are_what_its_bases_were_made_with(rows, seed, options, expected):
    made = countdown.traces(rows, seed, options)
    assert digest([[t.id, t.query, t.prompt, t.response, t.gold, t.verdict] for t in made]) == expected


def test_problems_and_near_misses_are_what_the_bases_were_made_with():
    pools = countdown.problems()
    listed = {name: [[list(p.numbers), p.target] for p in rows] for name, rows in pools.items()}
    assert digest(listed) == "7d5c11af42f49cd9f529c636c2f4f03068a2f83b700fea42e3c116a68ab0c6b9"
    near = [countdown.near_misses(p.numbers, p.target, 3, random.Random(p.key)) for p in pools["dev"]]
    assert digest(near) == "13b9633183133952da24d22acb3d6bdef6b442dba9fc16186485c7597bde86d8"
    solved = [s for p in pools["dev"] for s in countdown.solutions(p.numbers, p.target)]
    steps = [[step, made.text] for _, step, made in solved]
    assert digest(steps) == "5bbd3526307e229048e8aa32509407a62cfc97d06e2e9a255a6c34706afc5598"


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
            for f in _OPS:
                for g in _OPS:
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


@pytest.mark.parametrize(
    "options",
    [
        {"numbers": 7}, {"numbers": "4-3"}, {"numbers": "three"}, {"numbers": True}, {"largest": 0},
        {"lagest": 9}, {"largest": "nine"}, {"smallest": 13}, {"operators": "+x"}, {"operators": ""},
        {"operators": 3}, {"division": "round"}, {"use": "none"}, {"target": "0-9"}, {"target": "9-"},
        {"limit": 50}, {"solutions": "0-3"}, {"depth": "0"}, {"max_branches": 0}, {"verification": 1.5},
        {"subgoals": -0.1}, {"subgoals": "often"}, {"backtracking": 4}, {"numbers": 2, "backtracking": 1},
        {"prompt_style": "long"}, {"rule": "any"},
    ],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(DipscopeError):
        countdown.traces(1, 0, options)


def test_options_are_read_back_from_what_a_provenance_says():
    for options in (
        {},
        HARD,
        {**HARD, "solutions": "5-", "depth": "2-9", "backtracking": 1.5, "use": "some"},
    ):
        made = Options.of(options)
        assert Options.of(json.loads(json.dumps(made.as_dict()))) == made
    assert Options.of({"operators": "/ * -"}).operators == "-*/"
    assert Options.of({"solutions": "5-"}).solutions[1] > 10**6


@pytest.mark.parametrize(
    "options",
    [
        HARD,
        {"numbers": 6, "largest": 50, "target": "1-500", "operators": "+-*"},
        {"numbers": 3, "largest": 9, "use": "some"},
        {
            "numbers": 4,
            "smallest": 20,
            "largest": 60,
            "target": "1000-5000",
            "operators": "*-",
            "division": "exact",
        },
    ],
)
def test_problems_fulfil_their_options_and_splits_share_none(options):
    chosen = Options.of(options)
    drawn = {split: countdown.draw(25, split, 1, chosen) for split in ("train", "dev", "test")}
    for split, rows in drawn.items():
        assert len(set(rows)) == 25
        assert all(countdown.split_of(p.key) == split for p in rows)
        for p in rows:
            assert len(p.numbers) in chosen.counts and list(p.numbers) == sorted(p.numbers)
            assert chosen.smallest <= p.numbers[0] and p.numbers[-1] <= chosen.largest
            assert chosen.target_min <= p.target <= chosen.target_max
            assert (p.operators, p.use) == (chosen.operators, chosen.use)
            assert countdown.Solver(chosen.rule).reaches(p.numbers, p.target)
            assert p.use == "all" or p.target not in p.numbers
    again = countdown.draw(10, "train", 1, chosen)
    assert again == drawn["train"][:10]
    assert countdown.draw(10, "train", 2, chosen) != again


def test_each_count_of_a_range_is_equally_likely_until_it_runs_out():
    drawn = countdown.draw(600, "train", 0, Options.of(HARD))
    shares = [sum(len(p.numbers) == n for p in drawn) / 600 for n in (3, 4, 5)]
    assert all(abs(s - 1 / 3) < 4.5 * (2 / 9 / 600) ** 0.5 for s in shares)
    small = Options.of({"numbers": "2-3", "largest": 9})
    few = [p for p in countdown.problems(small)["train"] if len(p.numbers) == 2]
    drawn = countdown.draw(len(few) * 4, "train", 0, small)
    assert sum(len(p.numbers) == 2 for p in drawn) == len(few)


@pytest.mark.parametrize("numbers", [3, 4, 5])
def test_difficulty_is_as_asked(numbers):
    most = {"numbers": numbers, "largest": 30, "operators": "+-*/", "target": "10-200"}
    asked = Options.of({**most, "solutions": "2-4", "depth": "5-60"})
    for p in countdown.draw(15, "train", 0, asked):
        assert 2 <= countdown.Solver(asked.rule).count(p.numbers, p.target) <= 4
        working = {b.steps for b, _, _ in countdown.solutions(p.numbers, p.target, asked.rule)}
        order = [b.steps in working for b in countdown.branches(p.numbers, asked.rule)]
        assert 5 <= order.index(True) + 1 <= 60
        assert countdown.depth(p.numbers, p.target, asked.rule, 1_000) == order.index(True) + 1
        assert countdown.depth(p.numbers, p.target, asked.rule, order.index(True)) == order.index(True) + 1
    hard = Options.of({**most, "depth": "40-"})
    for p in countdown.draw(10, "train", 0, hard) if numbers > 3 else ():
        assert countdown.depth(p.numbers, p.target, hard.rule, 39) == 40


@pytest.mark.parametrize(
    "options",
    [
        {"numbers": 3, "largest": 5, "depth": "1000-"},
        {"numbers": 4, "largest": 60, "operators": "+", "target": "241-300"},
        {"numbers": 6, "largest": 2, "operators": "+", "target": "50-99"},
        {"numbers": 5, "smallest": 90, "largest": 99, "operators": "*", "target": "10-99"},
    ],
)
def test_drawing_what_does_not_exist_ends_with_one_clear_error(options):
    with pytest.raises(DipscopeError, match="countdown has 0 train problems, not 5"):
        countdown.draw(5, "train", 0, Options.of(options))


def test_listing_too_many_is_refused():
    with pytest.raises(DipscopeError, match="too many"):
        countdown.problems(Options.of(HARD))


@pytest.mark.parametrize("style", ["short", "list"])
@pytest.mark.parametrize("options", [{}, {**HARD, "use": "some"}, {"operators": "*-", "target": "1-99"}])
def test_prompts_are_read_back(style, options):
    for p in countdown.draw(20, "test", 3, Options.of(options)):
        asked = countdown.prompt(p, random.Random(p.key), style)
        assert sorted(countdown.shown_numbers(asked)) == list(p.numbers)
        found = countdown.read_prompt(asked)
        assert (found, found.operators, found.use) == (p, p.operators, p.use)


def test_published_prompts_and_golds_are_read():
    text = "Some words of a prompt.\nNumbers: [44, 19, 35]\nTarget: 98\nGo on."
    assert countdown.read_prompt(text) == Problem((19, 35, 44), 98)
    assert countdown.shown_numbers(text) == [44, 19, 35]
    assert countdown.read_prompt("Numbers: [4.0, 19, 35]\nTarget: 98") == Problem((4, 19, 35), 98)
    for other in ("Numbers: []\nTarget: 9", "Numbers: [1, 2]", "What is 2 + 2?", "Numbers: [1.5]\nTarget: 2"):
        assert countdown.read_prompt(other) is None
    found = Problem.from_gold({"numbers": [44.0, 19, 35], "target": 98.0})
    assert (found, found.operators) == (Problem((19, 35, 44), 98), "+-*/")
    assert json.loads(found.gold) == {"numbers": [19, 35, 44], "target": 98}


@pytest.mark.parametrize(
    "gold",
    ["x", "[1, 2]", "7", {"numbers": [1, 2]}, {"numbers": [], "target": 2}, {"numbers": [1.5], "target": 2}],
)
def test_what_is_no_gold_is_refused(gold):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Problem.from_gold(gold)


@pytest.mark.parametrize("operators", ["+-*", "+-*/", "+-"])
@pytest.mark.parametrize("use", ["all", "some"])
def test_gold_keeps_the_rules_that_the_checker_needs(operators, use):
    problem = Problem((2, 5, 9), 27, operators, use)
    found = Problem.from_gold(problem.gold)
    assert (found, found.use) == (problem, use)
    assert found.operators == ("+-" if operators == "+-" else "+-*/")


def test_near_misses_of_five_and_six_numbers_use_all_numbers_and_miss():
    rng = random.Random(4)
    for numbers, target in (((3, 8, 21, 50, 75), 431), ((2, 2, 9, 14, 60, 99), 777), ((95, 97, 99), 100)):
        near = countdown.near_misses(numbers, target, 4, rng)
        assert len(near) == 4
        for _, expression in near:
            value, used = countdown.evaluate(expression)
            assert value != target and tuple(sorted(used)) == numbers
