"""What the checker of Countdown reads, and what it makes of text that nobody should write."""

import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dipscope.data import countdown
from dipscope.data.countdown import Problem
from dipscope.scoring.countdown.grammar import read

sys.path.insert(0, str(Path(__file__).parents[1]))
from countdown_brute import by_python

PROBLEM = Problem((2, 5, 9), 27)
SOME = Problem((2, 5, 9), 45, use="some")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Answer: (5 - 2) * 9", "correct"),
        ("<think>\nGoal.\n</think>\nAnswer: 9 × (5 − 2).", "correct"),
        ("Answer: (5 - 2) * 9 = 27", "correct"),
        ("Answer: 1\nAnswer: (5 - 2) * 9", "correct"),
        ("**Answer:** (5 - 2) * 9", "correct"),
        ("**Answer: (5 - 2) * 9**", "correct"),
        ("Answer: $(5 - 2) \\times 9 = 27$.", "correct"),
        ("So \\boxed{(5 - 2) \\cdot 9} it is.", "correct"),
        ("Answer: \\boxed{\\left(5 - 2\\right) \\times 9}", "correct"),
        ("\\boxed{1}\n\\[ \\boxed{ 9 * {(5-2)} = 27 } \\]", "correct"),
        ("<answer> (5 - 2) · 9 </answer>", "correct"),
        ("<answer>1</answer> no: <answer>\n(5 - 2) ⋅ 9\n</answer>", "correct"),
        ("<think>\\boxed{1}</think> \\boxed{9 * (5 - 2)}", "correct"),
        ("Answer: (5 - 2) * 9 = 28", "missing"),
        ("Answer: 5 - 2 * 9", "wrong"),
        ("Answer: 27", "wrong"),
        ("\\boxed{27}", "wrong"),
        ("Answer: (5 - 2) * 9 * 1", "wrong"),
        ("Answer: (9 - 5) * 9 - 9", "wrong"),
        ("Answer: 9 / (5 - 5)", "wrong"),
        ("Answer: (5 - 2) * 9\nAnswer: 2", "wrong"),
        ("Answer: __import__('os')", "missing"),
        ("Answer: (5 - 2", "missing"),
        ("Answer: (5 - 2) 9", "missing"),
        ("Answer: -2 + 9 * 5", "missing"),
        ("Answer: ", "missing"),
        ("\\boxed{(5 - 2) * 9", "missing"),
        ("\\boxed{\\frac{5}}", "missing"),
        ("\\boxed{\\frac{5}{9}2}", "missing"),
        ("\\boxed{\\frac 5 9}", "missing"),
        ("<answer>(5 - 2) * 9", "missing"),
        ("(5 - 2) * 9", "missing"),
        ("<think>\nAnswer: (5 - 2) * 9", "missing"),
        ("<think>\\boxed{(5 - 2) * 9}</think> done", "missing"),
        ("Answer: (٥ - 2) * 9", "missing"),
    ],
)
def test_checker(answer, verdict):
    assert countdown.verify(PROBLEM, answer).verdict == verdict


@pytest.mark.parametrize(
    ("problem", "expression", "verdict"),
    [
        (Problem((3, 3, 8, 8), 24), "8 / (3 - 8 / 3)", "correct"),
        (Problem((3, 3, 8, 8), 24), r"\frac{8}{3 - \dfrac{8}{3}}", "correct"),
        (Problem((3, 3, 8, 8), 24), r"8 ÷ (3 − 8 \div 3) = 24", "correct"),
        (Problem((1, 3), 0), r"\frac{1}{3}", "wrong"),
        (SOME, "9 * 5", "correct"),
        (SOME, "9 * 5 * 2 - 9 * 5", "wrong"),
        (SOME, "45", "wrong"),
        (Problem((2, 5, 9), 27, operators="+-"), "(5 - 2) * 9", "wrong"),
        (Problem((2, 5, 9), 12, operators="+-"), "5 - 2 + 9", "correct"),
        (PROBLEM, None, "missing"),
    ],
)
def test_a_bare_expression_is_judged_by_the_rules_of_its_problem(problem, expression, verdict):
    assert countdown.judge(problem, expression).verdict == verdict


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500_000 + "5 - 2" + ")" * 500_000,
        "(" * 49 + "1" + ")" * 50,
        "1" * 1_000_000,
        "9" * 10,
        "1 + " * 250_000 + "1",
        "\\frac{" * 160_000,
        "\\frac{1}{" * 20 + "1" + "}" * 20,
        "{" * 999,
        "\\boxed{" * 140_000,
        "Answer: " * 120_000,
        "<answer>" * 120_000,
        "(5 - 2) * 9" + " " * 1_000_000 + "1",
        "=" * 100,
        "5 * " * 30 + "\x00",
        "9 ** 9 ** 9 ** 9",
        "1e999",
    ],
)
@pytest.mark.parametrize("form", ["Answer: {}", "\\boxed{{{}}}", "<answer>{}</answer>", "{}"])
def test_hostile_text_is_missing_at_once(text, form):
    begun = time.process_time()
    assert countdown.verify(
        PROBLEM, form.replace("{{", "{").replace("}}", "}").replace("{}", text)
    ).verdict in (
        "missing",
        "wrong",
    )
    assert time.process_time() - begun < 1


def test_the_deepest_expression_that_is_read_needs_no_recursion():
    limit = sys.getrecursionlimit()
    deep = "(" * 49 + "7" + ")" * 49
    frames = 0
    frame = sys._getframe()
    while frame := frame.f_back:
        frames += 1
    sys.setrecursionlimit(frames + 30)
    try:
        assert countdown.evaluate(deep) == (7, [7])
    finally:
        sys.setrecursionlimit(limit)


# The same random expression as Python writes it and as a response may write it.
leaves = st.integers(0, 99).map(lambda n: (str(n), str(n)))
SIGNS = {"+": "+", "-": "-−–", "*": ["*", "×", "·", r"\times ", r"\cdot "], "/": ["/", "÷", r"\div "]}


@st.composite
def joined(draw, inner):
    (a, x), (b, y) = draw(inner), draw(inner)
    sign = draw(st.sampled_from("+-*/"))
    if sign == "/" and draw(st.booleans()):
        return f"(({a}) / ({b}))", rf"\frac{{{x}}}{{{y}}}"
    shown = draw(st.sampled_from(SIGNS[sign]))
    space = draw(st.sampled_from(["", " ", r"\, "]))
    python, text = f"{a} {sign} {b}", f"{x}{space}{shown}{space}{y}"
    return (f"({python})", f"({text})") if draw(st.booleans()) else (python, text)


@given(st.recursive(leaves, joined, max_leaves=12))
def test_parser_agrees_with_python(pair):
    python, text = pair
    assume(len(text) <= 1_000)
    reading = read(text)
    try:
        expected = by_python(python)
    except ZeroDivisionError:
        expected = None
    assert reading.value == expected
    assert sorted(reading.used) == sorted(map(int, re.findall(r"\d+", python)))
    assert reading.operators == set(re.findall(r"[-+*/]", python))
    assert countdown.evaluate(text, "+-*/") == (None if expected is None else (expected, list(reading.used)))
    if reading.operators & {"/"}:
        assert countdown.evaluate(text) is None


@given(st.text(alphabet="0123456789+-*/()= .×x\n{}\\frac$", max_size=60))
def test_parser_never_raises(text):
    countdown.evaluate(text)
    countdown.verify(PROBLEM, f"\\boxed{{{text}}}")
