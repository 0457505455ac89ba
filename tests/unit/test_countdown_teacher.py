"""The traces of the Countdown teacher under any options: true statements, at the rates asked for."""

import random
import re
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from dipscope.data import countdown
from dipscope.data.countdown import Options, Problem
from dipscope.errors import DipscopeError

sys.path.insert(0, str(Path(__file__).parents[1]))
from countdown_brute import by_python

STEP = re.compile(r"(\S+) ([-+*/]) (\S+) (?:([=>]) (\S+?)|is not whole)")
TRY = re.compile(r"Try (.+), (left|with) (\S+), goal (\d+): (.+)\.")
ALL = {"verification": 0.5, "subgoals": 0.5, "backtracking": 2.0}
WIDE = {"operators": "+-*/", "target": "10-999", "largest": 99, **ALL}
CASES = [
    {},
    ALL,
    {"numbers": 2, "largest": 40, "subgoals": 1.0, "verification": 0.0},
    {"numbers": 4, "largest": 9, "max_branches": 7, **ALL},
    {"numbers": "3-6", **WIDE},
    {"numbers": "3-5", "division": "exact", **WIDE},
    {"numbers": 4, "largest": 13, "target": 24, "operators": "+-*/", "division": "exact", **ALL},
    {"numbers": "3-5", "use": "some", **WIDE},
    {"numbers": "3-4", "use": "some", "division": "exact", **WIDE, "prompt_style": "list"},
    {"numbers": 4, "largest": 500, "operators": "+-", "target": "100-999", **ALL},
    {"numbers": 3, "largest": 4, "target": "1-9", "operators": "+-*/", **ALL},
    {"numbers": 5, "largest": 60, "operators": "*/+", "target": "10-500", "limit": 700, **ALL},
]


def number(written: str) -> Fraction:
    return Fraction(written.strip("()"))


def is_true(step: str, limit: int) -> tuple[Fraction, Fraction, Fraction]:
    """Checks a step as written; the two values it takes and the one it makes."""
    found = STEP.fullmatch(step)
    assert found, step
    a, b = number(found[1]), number(found[3])
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if found[2] == "/" else 0}[found[2]]
    if found[4] is None:
        assert value.denominator > 1
    else:
        assert value == number(found[5]) if found[4] == "=" else value > number(found[5]) == limit
    return a, b, value


def walks(line: str, numbers: Counter, target: int, options: Options) -> bool:
    """Checks one branch against the numbers that are left at each step; whether it works."""
    steps, word, left, goal, last = TRY.fullmatch(line).groups()
    assert int(goal) == target and (word == "with") == (options.use == "some")
    at_hand = Counter(numbers)
    made = None
    for step in steps.split(", "):
        if len(step.split()) == 1:  # two numbers: there is no step before the last
            made = number(step)
            continue
        a, b, made = is_true(step, options.rule.limit)
        assert made > 0 and max(made.numerator, made.denominator) <= options.rule.limit
        at_hand -= Counter([a, b])
        at_hand[made] += 1
    ends = Counter([made, number(left)])
    assert ends <= at_hand if options.use == "some" else ends == at_hand
    verdicts = []
    for clause in last.split(", "):
        step, verdict = clause.rsplit(" ", 1)
        a, b, value = is_true(step, options.rule.limit)
        assert Counter([a, b]) == ends
        assert (verdict == "yes") == (value == target)
        verdicts.append(verdict)
    assert verdicts[-1] == "yes" or "yes" not in verdicts
    return verdicts[-1] == "yes"


@pytest.mark.parametrize("options", CASES)
def test_traces_are_verified_and_every_statement_is_true(options):
    chosen = Options.of(options)
    for trace in countdown.traces(30, 3, options):
        problem = Problem.from_gold(trace.gold)
        target = problem.target
        assert trace.verdict == countdown.verify(problem, trace.response).verdict == "correct"
        thinking, after = re.fullmatch(r"<think>\n(.*)\n</think>\n(.*)", trace.response, re.DOTALL).groups()
        goal, *lines = thinking.split("\n")
        assert goal == f"Goal {target} from {', '.join(map(str, countdown.shown_numbers(trace.prompt)))}."
        numbers = Counter(map(Fraction, problem.numbers))
        worked = []
        for line in lines:
            kind = line.split()[0]
            if kind == "Need":
                hope = re.fullmatch(rf"Need {target}, so (.+) would do\.", line)[1]
                assert is_true(f"{hope} = {target}", chosen.rule.limit)
            elif kind == "Check:":
                found = re.fullmatch(r"Check: (.+) = (\S+)(?:, not (\d+)\.|\. (Good)\.)", line)
                value = by_python(found[1])
                assert value == Fraction(found[2])
                assert (value == target) == (found[4] == "Good") == worked[-1]
                assert found[4] or int(found[3]) == target
            else:
                worked.append(walks(line, numbers, target, chosen))
        assert worked == [False] * (len(worked) - 1) + [True]
        assert len(worked) <= chosen.max_branches
        first, answer = after.split("\n")
        is_true(first.removeprefix("Start with ").removesuffix("."), chosen.rule.limit)
        assert ("\\boxed{" in answer) == (chosen.prompt_style == "list")


def test_words_of_the_defaults_are_kept_by_every_option():
    plain = {w for t in countdown.traces(300, 0) for w in re.findall(r"[a-zA-Z]+", t.response)}
    other = {
        w for o in CASES for t in countdown.traces(12, 0, o) for w in re.findall(r"[a-zA-Z]+", t.response)
    }
    assert other - plain <= {"Need", "so", "would", "do", "not", "with", "boxed", "is", "whole"}


@pytest.mark.parametrize("numbers", ["4", pytest.param("5", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("backtracking", "verification", "subgoals", "most"),
    [(0.0, 0.0, 0.0, 4), (1.0, 0.3, 0.7, 4), (2.5, 0.8, 0.15, 6), (3.0, 1.0, 1.0, 4)],
)
def test_rates_are_what_was_asked_for(numbers, backtracking, verification, subgoals, most):
    options = {
        "numbers": numbers,
        "largest": 60,
        "operators": "+-*/",
        "target": "10-500",
        "max_branches": most,
    }
    rates = {"backtracking": backtracking, "verification": verification, "subgoals": subgoals}
    responses = [t.response for t in countdown.traces(300, 1, {**options, **rates})]
    tried = sum(r.count("\nTry ") for r in responses)
    failed = tried - 300
    share = backtracking / (most - 1)

    def within(count: int, n: int, p: float) -> bool:
        return abs(count - n * p) <= 4.5 * (n * p * (1 - p)) ** 0.5

    assert within(failed, 300 * (most - 1), share)
    assert within(sum(r.count("\nCheck: ") for r in responses), tried, verification)
    assert within(sum(r.count("\nNeed ") for r in responses), tried, subgoals)
    shown = countdown.rates(responses)
    assert shown["backtracking"] == failed / 300
    assert shown["verification"] == sum(r.count("\nCheck: ") for r in responses) / tried
    assert shown["subgoals"] == sum(r.count("\nNeed ") for r in responses) / tried


def test_rates_do_not_change_which_problems_are_asked():
    plain = countdown.traces(50, 2, {"numbers": 4})
    other = countdown.traces(50, 2, {"numbers": 4, **ALL})
    assert [t.query for t in plain] == [t.query for t in other]
    assert [t.response for t in plain] != [t.response for t in other]


def test_longer_tables_begin_like_shorter_ones_and_seeds_differ():
    options = {"numbers": "3-5", **WIDE}
    some = countdown.traces(40, 7, options)
    assert countdown.traces(15, 7, options) == some[:15]
    assert countdown.traces(15, 8, options) != some[:15]
    tests = countdown.traces(40, 7, options, split="test")
    assert not {t.query for t in tests} & {t.query for t in some}


def test_unanswered_rows_ask_the_same_questions():
    options = {"numbers": 4, "prompt_style": "list", **WIDE}
    for asked, told in zip(
        countdown.traces(20, 0, options, answered=False), countdown.traces(20, 0, options), strict=True
    ):
        assert (asked.query, asked.prompt, asked.gold) == (told.query, told.prompt, told.gold)
        assert asked.response == asked.verdict == ""


def test_what_cannot_be_solved_is_said():
    with pytest.raises(DipscopeError, match="no way to 97 from 1, 1, 2"):
        countdown.respond([1, 1, 2], 97, random.Random(0))


def test_progress_counts_up():
    seen = []
    countdown.traces(5, 0, report=lambda done, total, note: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]
