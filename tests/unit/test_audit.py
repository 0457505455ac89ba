"""`dipscope audit`: the second checkers, the sample, what is weighted back, and what is shown."""

import ast
import json
import operator
from collections import Counter
from fractions import Fraction

import pytest
import stored_workspace as made
from hypothesis import given
from hypothesis import strategies as st

from dipscope.data import countdown
from dipscope.errors import DipscopeError
from dipscope.scoring import audit as checks
from dipscope.scoring import numeric
from dipscope.scoring.audit import Checked, Verdict, estimate, expression, sample
from dipscope.verbs.audit import audit

GOLDS = ["42", r"\frac{3}{4}", "7", "-5", r"\text{Evelyn}"]
MATH, NUMBERS, GAME, NAMES = "paper/math500", "organism/arithmetic", "organism/countdown", "organism/facts"
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def verdict(key, stratum=("a",), said="4", correct=True, gold="4"):
    return Verdict(key, stratum, "number", gold, said, correct)


# The second checkers


def by_python(node):
    """Value of an expression, by Python's own grammar, and its numbers."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value), [node.value]
    one, other = by_python(node.left), by_python(node.right)
    return OPERATORS[type(node.op)](one[0], other[0]), one[1] + other[1]


expressions = st.recursive(
    st.integers(1, 9).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
    max_leaves=4,
)


@given(expressions, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 30), st.booleans())
def test_expressions_have_the_value_and_the_numbers_that_python_finds(text, numbers, target, fits):
    try:
        value, used = by_python(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        assert expression({"numbers": numbers, "target": target}, text) is False
        return
    if fits:
        numbers = used
        target = int(value) if value.denominator == 1 else target
    wanted = value == target and Counter(used) == Counter(numbers)
    some = value == target and Counter(used) <= Counter(numbers)
    problem = {"numbers": numbers, "target": target}
    assert expression(problem, text) is wanted
    assert expression(json.dumps(problem | {"use": "some"}), f"{text} = {target}") is some


def test_the_solutions_of_countdown_are_right_for_both_checkers_and_near_misses_wrong():
    checked = 0
    for problem in countdown.draw(20, "test", 0):
        for _, _, term in countdown.solutions(problem.numbers, problem.target):
            assert expression(problem.gold, term.text) is True
            checked += 1
        for said in (str(problem.target), "+".join(map(str, (*problem.numbers, 1)))):
            assert expression(problem.gold, said) is False
    assert checked > 20


@pytest.mark.parametrize("said", ["2 + x", "-3 + 5", "2 ^ 3", "(2 + 3", "two", "", "9" * 700])
def test_what_is_not_of_the_game_the_second_checker_leaves_alone(said):
    assert expression({"numbers": [2, 3], "target": 5}, said) is None


def test_operators_of_the_problem_and_other_signs():
    assert expression({"numbers": [2, 3], "target": 6}, "2 × 3") is True
    assert expression({"numbers": [2, 3], "target": 6, "operators": "+-"}, "2 × 3") is False


# The sample


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 200), st.integers(0, 3), st.randoms()
)
def test_every_stratum_is_there_and_weights_give_back_its_size(sizes, n, seed, order):
    rows = [verdict(f"{s}/{i}", (s,)) for s, size in enumerate(sizes) for i in range(size)]
    drawn = sample(rows, n, seed)
    assert len(drawn) == max(len(sizes), min(n, sum(sizes)))
    assert len({c.verdict.key for c in drawn}) == len(drawn)
    for s, size in enumerate(sizes):
        weights = [c.weight for c in drawn if c.verdict.stratum == (s,)]
        assert weights and sum(weights) == pytest.approx(size)
    order.shuffle(rows)
    assert sample(rows, n, seed) == drawn


def test_the_weighted_rate_is_right_on_average_and_the_interval_covers_it():
    rows = [verdict(f"a{i}", ("a",), correct=i % 10 != 0) for i in range(300)]  # 10 % wrongly judged
    rows += [verdict(f"b{i}", ("b",), correct=i % 2 != 0) for i in range(20)]  # half of them
    truth = 40 / 320
    found = [estimate(sample(rows, 60, seed)) for seed in range(200)]
    mean = sum(f.rate for f in found) / len(found)
    assert abs(mean - truth) < 0.01
    assert sum(f.low <= truth <= f.high for f in found) >= 186  # 95 % of 200 less two standard errors
    whole = estimate(sample(rows, 10_000, 0))
    assert whole.rate == truth and whole.sampled == whole.verdicts == 320 and whole.disagreements == 40


@given(st.integers(1, 60), st.data())
def test_with_equal_weights_the_interval_is_wilsons(n, data):
    hits = data.draw(st.integers(0, n))
    found = estimate([Checked(verdict(str(i)), 2.5, i >= hits) for i in range(n)])
    assert (found.low, found.high) == pytest.approx(numeric.wilson(hits, n), abs=1e-12)
    assert found.rate == pytest.approx(hits / n) and found.cannot_say == 0


def test_unequal_weights_widen_the_interval():
    even = estimate([Checked(verdict(str(i)), 5.0, i >= 2) for i in range(20)])
    uneven = estimate([Checked(verdict(str(i)), 0.5 + 9 * (i % 2), i >= 2) for i in range(20)])
    assert uneven.rate == even.rate and uneven.high - uneven.low > even.high - even.low


def test_what_cannot_be_said_is_a_share_and_not_a_disagreement():
    rows = [verdict(str(i), said=said) for i, said in enumerate(["4", None, "4" * 500, "some words here"])]
    found = estimate(sample(rows, 10, 0))
    assert (found.judged, found.disagreements, found.cannot_say, found.rate) == (1, 0, 0.75, 0.0)
    nothing = estimate(sample(rows[1:], 10, 0))
    assert (nothing.judged, nothing.rate, nothing.low, nothing.high) == (0, None, 0.0, 1.0)
    assert estimate([]).verdicts == 0


# The verb


def say(task, step):
    """Right at the base, a little off later; mathematics behind thinking."""
    gold = task.item.gold
    if task.benchmark.name == MATH:
        boxed = gold if "boxed" in gold else rf"\boxed{{{gold}}}"
        return f"<think>hm</think>{boxed if step == 0 else boxed.replace('{', '{100', 1)}"
    if task.benchmark.name == GAME:
        numbers = "+".join(map(str, gold["numbers"]))
        return f"Answer: {task.item.options[0].removeprefix(' ') if step == 0 else numbers}"
    return f"Answer: {gold if step == 0 else 99}"


@pytest.fixture
def spec(tmp_path):
    path = str(made.math500(tmp_path, GOLDS))
    return made.study([MATH, NUMBERS, GAME, NAMES], items=5, samples=1, benchmark={MATH: {"path": path}})


def ask(root, *options):
    done = made.call(audit, str(root), *options, "--json")
    assert done.exit_code == 0
    return json.loads(done.stdout.splitlines()[-1])


def test_two_checkers_agree_on_what_was_rightly_judged(tmp_path, spec):
    told = ask(made.workspace(tmp_path / "w", spec, say).root)
    assert told["disagreements"] == [] and told["not_audited"] == [NAMES]
    assert set(told["benchmarks"]) == {MATH, NUMBERS, GAME}
    assert told["all"]["verdicts"] == 30 == told["all"]["sampled"]
    assert told["all"]["rate"] == 0 and told["all"]["high"] < 0.2
    math = told["benchmarks"][MATH]
    assert math["judged"] == 8 and math["cannot_say"] == pytest.approx(0.2)  # the name


@pytest.mark.parametrize("stored", ["correct", "wrong"])
def test_verdicts_turned_round_are_all_found(tmp_path, spec, stored):
    told = ask(made.workspace(tmp_path / "w", spec, say, verdict=stored).root)
    found = Counter((d["benchmark"], d["checkpoint"]) for d in told["disagreements"])
    at = "tiny @ 0" if stored == "wrong" else "tiny/cot/r/seed0 @ 2"
    assert set(found) == {(MATH, at), (NUMBERS, at), (GAME, at)}
    assert found[MATH, at] == 4
    assert (
        {d["stored"] for d in told["disagreements"]}
        == {stored}
        != {d["second"] for d in told["disagreements"]}
    )
    assert told["all"]["disagreements"] == len(told["disagreements"])
    one = next(d for d in told["disagreements"] if d["benchmark"] == MATH)
    assert one["gold"] in GOLDS and one["extracted"] and len(one["item"]) == 16


def test_a_sample_is_the_same_each_time_and_another_seed_draws_another(tmp_path, spec):
    root = made.workspace(tmp_path / "w", spec, say, verdict="wrong").root
    one = ask(root, "--sample", "12")
    assert one == ask(root, "--sample", "12") and one["all"]["sampled"] == 12
    assert any(
        ask(root, "--sample", "12", "--seed", str(s))["disagreements"] != one["disagreements"] for s in (1, 2)
    )


def test_under_the_papers_protocol_the_gold_is_the_answer_alone(tmp_path):
    path = str(made.math500(tmp_path, GOLDS[:4]))
    spec = made.study([MATH], items=5, samples=1, protocol="paper", benchmark={MATH: {"path": path}})
    told = ask(made.workspace(tmp_path / "w", spec, lambda t, s: f"It is {t.item.gold.split('$')[1]}").root)
    assert (told["all"]["judged"], told["all"]["disagreements"]) == (8, 0)
    told = ask(made.workspace(tmp_path / "v", spec, say, verdict="wrong").root)
    assert {d["gold"] for d in told["disagreements"]} <= set(GOLDS) and told["disagreements"]


def test_texts_of_models_cannot_steer_the_terminal(tmp_path, spec, monkeypatch):
    hostile = "\x1b[2J\u202e[red]4[/red]\r\n5"
    root = made.workspace(tmp_path / "w", spec, say).root
    done = made.call(audit, str(root))
    assert "Not audited" in done.stdout and NAMES in done.stdout and "0.00%" in done.stdout
    golds = [hostile, *GOLDS[1:]]
    (tmp_path / "hostile").mkdir()
    path = str(made.math500(tmp_path / "hostile", golds))
    spec = made.study([MATH], items=5, samples=1, benchmark={MATH: {"path": path}})
    bad = made.workspace(tmp_path / "v", spec, say, extracted="4\x1b]0;x\x07[blink]", verdict="wrong").root
    monkeypatch.setattr(checks, "second", lambda v: True)
    shown = made.call(audit, str(bad)).stdout
    assert not set(shown) & set("\x1b\x07\r\u202e")
    assert "[red]4[/red]" in shown.replace("\n", "") and "[blink]" in shown.replace("\n", "")


def test_a_study_without_a_second_checker_is_one_line(tmp_path):
    root = made.workspace(tmp_path / "w", made.study([NAMES], items=3, samples=1), say).root
    with pytest.raises(DipscopeError, match="has a second checker"):
        made.call(audit, str(root))
