"""The second checker: values at fixed points, by a parser of its own; and the audit."""

import ast
import inspect
import math
import random
from fractions import Fraction

import pytest
import stored_outputs
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dipscope.scoring import arithmetic, numeric
from dipscope.scoring.numeric import audit, equal, wilson


@pytest.mark.parametrize(
    ("gold", "answer", "found"),
    [
        ("1/2", r"\frac12", True),
        (r"3\frac{1}{2}", "7/2", True),
        (r"\sqrt{12}", r"2\sqrt3", True),
        (r"\sqrt[3]{8}", "2", True),
        ("x^2-1", "(x-1)(x+1)", True),
        ("x^2-1", "(x-1)^2", False),
        (r"\sin 2x", r"2\sin x\cos x", True),
        (r"\sin^2 x + \cos^2 x", "1", True),
        (r"\tan^{-1} 1", r"\frac{\pi}{4}", True),
        (r"\log_2 8", "3", True),
        (r"\log 100", "2", None),
        (r"e^{i\pi}", "-1", True),
        ("5!", "120", True),
        (r"\binom{5}{2}", "10", True),
        ("2^{10}", "1024", True),
        ("-2^2", "-4", True),
        (r"2\frac{x}{3}", "2x/3", True),
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{3}", "0.3333", False),
        ("10{,}000", "10000", True),
        (r"\lfloor 3.7 \rfloor", "3", True),
        ("|-3|", "3", True),
        ("4", "5", False),
        ("1,2", "2,1", True),
        ("(1,2)", "(2,1)", False),
        ("(1,2)", "(1,2)", True),
        (r"3\pm\sqrt2", r"3+\sqrt2,3-\sqrt2", True),
        (r"\{1,2,3\}", "3,1,2", True),
        ("1,2", "1,2,3", False),
        ("[0,1)", r"0\le x<1", True),
        ("[0,1)", "[0,1]", False),
        (r"(3,\infty)", "x>3", True),
        (r"(-\infty,3)", "x>3", False),
        ("x^2/5+3y^2/5=1", "x^2+3y^2=5", True),
        ("y-x=1", "x-y=-1", True),
        ("x=3", "3", True),
        ("x=3", "y=3", None),
        ("50\\%", "50", None),
        ("5 cm", "5", None),
        (r"\text{cat}", "dog", None),
        ("evelyn", "evelyn", None),
        (r"9^{9^{9}}", "1", None),
        ("(10^9)!", "1", None),
        ("1/0", "1", None),
        (r"\int_0^1 x dx", "1/2", None),
        ("", "1", None),
        ("{" * 500, "1", None),
        ("x" * 10**6, "1", None),
        ("\ud800", "1", None),
    ],
)
def test_equal(gold, answer, found):
    assert equal(gold, answer) is found


def test_it_shares_no_code_with_the_verifier():
    used = {arithmetic, numeric}
    for module in used:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                assert not node.module.startswith("dipscope") or node.module == arithmetic.__name__
            elif isinstance(node, ast.Import):
                assert not {"sympy", "math_verify"} & {name.name for name in node.names}


LEAVES = st.integers(0, 30).map(lambda n: (str(n), Fraction(n)))


def _combined(parts):
    def join(pair):
        (a, x), (b, y), sign = pair
        if sign == "+":
            return f"({a}+{b})", x + y
        if sign == "-":
            return f"({a}-{b})", x - y
        if sign == "*":
            return f"{a} \\cdot {b}", x * y
        return (f"\\frac{{{a}}}{{{b}}}", x / y) if y else (f"({a})", x)

    return st.tuples(parts, parts, st.sampled_from("+-*/")).map(join)


@given(st.recursive(LEAVES, _combined, max_leaves=8))
def test_rational_formulas_have_their_exact_value(formula):
    text, exact = formula
    assert arithmetic.value(arithmetic.parse(text), {}) == exact
    shown = f"\\frac{{{exact.numerator}}}{{{exact.denominator}}}"
    assert equal(shown, text) is True
    assert equal(f"{shown}+10^{{-30}}", text) is False


@given(st.text(alphabet="0123456789+-*/^(){}\\fracsqtxye,.=<> ", max_size=80))
def test_any_text_is_judged_or_not_without_error(text):
    assert equal(text, "1") in (True, False, None)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 40), (40, 40), (1, 700)])
def test_wilson_agrees_with_scipy(hits, n):
    low, high = wilson(hits, n)
    reference = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_audit_counts_what_it_can_judge():
    found = audit(
        [("1/2", "0.5", "correct"), ("1/2", "0.25", "correct"), ("1", "2", "wrong"), ("1", "1", "error"),
         ("Evelyn", "Evelyn", "correct"), ("1", "1", "wrong")]
    )  # fmt: skip
    assert (found.rows, found.judged) == (5, 4)
    assert found.disagreements == (("1/2", "0.25", "correct"), ("1", "1", "wrong"))
    assert found.rate == 0.5 and found.low < 0.5 < found.high
    assert math.isnan(audit([]).rate)


def test_stored_golds_equal_themselves_and_not_each_other(shared):
    golds = [row.gold for row in stored_outputs.outputs(shared) if row.source == "long_cot"]
    same = [equal(gold, gold) for gold in golds]
    assert False not in same
    assert sum(found is True for found in same) >= 450  # of 500; the rest is text and the like
    rng = random.Random("golds")
    for _ in range(300):
        one, other = rng.sample(golds, 2)
        assert equal(one, other) is not True or equal(other, one) is True
