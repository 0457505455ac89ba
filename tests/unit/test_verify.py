"""Verdicts in one process. Hostile input, which needs the pool's limits, is in test_verifiers."""

import json
import random

import pytest
import stored_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.scoring.base import Judgement
from dipscope.scoring.verifiers import Verifiers
from dipscope.scoring.verify import VERSION, decide, verify

PROBLEM = json.dumps({"numbers": [3, 4, 5], "target": 17})
CORRECT = [
    # cosmetics
    (r"\frac{1}{2}", r"$\dfrac12$"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\tfrac{\pi}{2})"),
    (r"x^{2}", "x^2."),
    (r"p - q", r"\boxed{p-q}"),
    (r"90^\circ", "90"),
    (r"90", r"90^{\circ}"),
    ("12", r"12^{\text{th}}"),
    (r"\frac{9}{4}\pi", r"\frac94\pi"),
    # numbers
    ("7425000", r"7,425,000"),
    (r"32,\! 349", "32349"),
    ("10{,}000", "10 000"),
    ("0.5", ".5"),
    ("5.0", "5"),
    ("-10/9", r"-\frac{10}{9}"),
    (r"\frac{14}{3}", r"4\frac{2}{3}"),
    ("3 1/2", "7/2"),
    ("1,22", "1.22"),
    (r"\frac{1}{12}", "0.0833333333333333"),
    ("300000", r"3 \times 10^{5}"),
    (r"10\%", "10"),
    (r"10\%", "0.1"),
    ("0.1", r"10 \%"),
    (r"\$12.00", "12"),
    ("7:32", "14:64"),
    ("204_5", "204_{5}"),
    ("204_5", "204"),
    # units
    (r"15\mbox{ cm}^2", "15"),
    ("125", "125 miles"),
    ("125 miles", r"125 \text{ miles}"),
    ("5 cm", "5 centimeters"),
    (r"5\text{ m}", "5 m"),
    # text
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{even}", r"\textbf{Even}"),
    (r"\text{(C)}", "C"),
    ("C", "(C) 12"),
    ("(D) Alina", "D"),
    (r"\text{4:30 p.m.}", r"4:30 \text{ pm}"),
    # lists, sets, points
    ("1,-2", "-2, 1"),
    (r"\{1,2\}", "2, 1"),
    ("1,2,3", r"1 \text{ and } 2 \text{ and } 3"),
    (r"3 \pm 2\sqrt{2}", r"3-2\sqrt2, 3+2\sqrt2"),
    ("2, 3", "3, 2, 3"),
    ("(0;1),(1;0)", "(1,0), (0,1)"),
    (r"\frac{1}{2}, \sqrt{2}", r"\sqrt 2, 0.5"),
    ("(p,q,r)=(3,2,7)", "(3,2,7)"),
    (r"x=\{1,2\}", "1, 2"),
    ("x = 1, y = 2", "y=2, x=1"),
    ("p=5,q=2;p=7,q=2", r"p = 5, q = 2 \text{ and } p = 7, q = 2"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & \frac{8}{2} \end{bmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    # intervals and inequalities
    ("[0,1)", r"0 \le x < 1"),
    ("[0,1)", r"x \in [0,1)"),
    ("x > 3", r"(3,\infty)"),
    ("x > 3", "3 < x"),
    (r"(-\infty,1)\cup(2,\infty)", "x<1 or x>2"),
    (r"(2,\infty)\cup(-\infty,1)", r"(-\infty,1) \cup (2,\infty)"),
    ("x < 1", "-x > -1"),
    (r"x \ne 3", r"(-\infty,3)\cup(3,\infty)"),
    (r"\mathbb{R}", r"(-\infty,\infty)"),
    # equations
    ("x^2/5+3y^2/5=1", "x^2+3y^2=5"),
    ("x^2+3y^2=5", "x^2/5+3y^2/5=1"),
    ("2x+2y=8", "x+y=4"),
    (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"),
    ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
    ("2x+4y-3=0", r"y=-\frac12x+\frac34"),
    ("5", "x=5"),
    ("x=5", "5"),
    ("y=2x+1", "2x+1"),
    ("y=2x+1", "f(x)=2x+1"),
    ("1/3", r"x=1/3 \approx 0.33"),
    ("x = 11", "x = 5+5+1 = 11"),
    # formulas
    (r"\sqrt{12}", r"2\sqrt{3}"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\sin(2x)", r"2\sin x\cos x"),
    (r"\frac{\pi r}{h+r}", r"\frac{r\pi}{r+h}"),
    ("ab", "ba"),
    (r"2^{10}-1", "1023"),
    ("5!", "120"),
    # sentences
    ("3", "Jane started growing Sphere 3 hours ago"),
    ("34", "The largest $n$ is 34"),
    (r"\frac{1}{2}", r"Therefore the value is $\frac12$"),
    # Countdown
    (PROBLEM, "3 * 4 + 5"),
    (PROBLEM, r"\boxed{5 + 3 \times 4 = 17}"),
]
WRONG = [
    ("5", "6"),
    ("5", "-5"),
    ("5", "four"),
    ("1/3", "0.33"),
    ("0.5", r"0.5\%"),
    ("1e-9", "2e-9"),
    ("5 cm", "5 m"),
    ("204_5", "204_6"),
    ("12:00", "1:00"),
    ("4:05", "4:50"),
    (r"\text{east}", r"\text{west}"),
    (r"\text{(C)}", "D"),
    ("C", "(D) 12"),
    ("2h", "2"),
    ("1,2", "1,2,3"),
    ("1,2", "1"),
    ("2", "1,2"),
    ("1,1", "1,2"),
    ("(1,1)", "1"),
    ("(1,2)", "(2,1)"),
    ("(0,9)", "[0,9)"),
    ("[0,1)", "0 < x < 1"),
    ("x > 3", "x < 3"),
    ("x=3", "y=3"),
    ("x+y=0", "0"),
    ("2x+z=1", "1"),
    ("x^2+3y^2=5", "x^2+3y^2=6"),
    ("y_1=2x, y_2=3x", "3x"),
    ("x^2+2x-1", "(x+1)^2"),
    (r"\frac{1+\sqrt{5}}{2}", "2"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\4&3\end{pmatrix}"),
    ("5", "the function has no maximum on it"),
    ("5", "?"),
    (PROBLEM, "3 + 4 + 5"),
    (PROBLEM, "17 * 1"),
]


@pytest.mark.parametrize(("gold", "answer"), CORRECT)
def test_correct(gold, answer):
    assert decide(gold, answer) == ("correct", "")


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold, answer):
    assert decide(gold, answer) == ("wrong", "")


def test_long_integers_are_compared_as_text():
    long = "".join(random.Random("digits").choices("123456789", k=5000))
    assert verify(long, long).verdict == "correct"
    assert verify(long, "0" + long).verdict == "correct"
    assert verify(long, long[:-1] + "0").verdict == "wrong"
    assert verify("5", long).verdict == "wrong"
    assert decide(long, "x+1") == ("error", "a long number against a formula")
    grouped = f"{int(long[:1500]):,}"
    assert verify(long[:1500], grouped).verdict == "correct"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", r"\frac{1}{"),
        (r"\frac{1}{", "5"),
        ("", "5"),
        ("5", "x" * 5000),
        (r"\sqrt{2}", r"\sqrt{" * 100 + "2" + "}" * 100),
        ("x^2", "y" * 2000),
        ("1,2", r"1,\frac{1}{"),
    ],
)
def test_what_cannot_be_decided_is_an_error_with_a_reason(gold, answer):
    verdict, reason = decide(gold, answer)
    assert verdict == "error" and reason
    assert verify(gold, answer) == Judgement("error", None, answer[:500])


@pytest.mark.parametrize("answer", ["# # #", "$ $", ""])
def test_an_answer_of_which_nothing_is_left_is_wrong(answer):
    assert verify("5", answer).verdict == "wrong"


def test_a_difference_decides_whatever_else_is_not_understood():
    assert decide("1,2", r"(3,4,\frac{1}{})")[0] == "wrong"
    assert decide("(1,2)", r"(3,\frac{1}{})")[0] == "wrong"


def test_judgements_and_countdown_without_expression():
    assert verify("1/2", "0.5") == Judgement("correct", 1.0, "0.5")
    assert verify("1", "2") == Judgement("wrong", 0.0, "2")
    assert verify(PROBLEM, "no solution").verdict == "missing"
    assert verify('{"some": "object"}', '{"some": "object"}').verdict == "correct"
    assert VERSION.startswith("verify/") and "math-verify-0.9" in VERSION


def test_the_verifier_executes_nothing(tmp_path):
    for text in (f"__import__('os').system('touch {tmp_path}/x')", "open('/etc/passwd').read()", "exit()"):
        for form in (text, rf"\text{{{text}}}", f"${text}$", f"x+{text}"):
            assert verify("5", form).verdict in ("wrong", "error")
            verify(form, "5")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=10)
@given(st.lists(st.integers(-20, 20), min_size=3, max_size=3), st.integers(2, 9), st.booleans())
def test_equations_are_equal_up_to_scale_and_sign_and_no_further(coefficients, scale, flipped):
    a, b, c = coefficients
    a, b = a or 1, b or 1
    factor = -scale if flipped else scale
    gold = f"{a}x^2+({b})y={c}"
    assert verify(gold, f"({a * factor})x^2+({b * factor})y={c * factor}").verdict == "correct"
    divided = [f"\\frac{{{n}}}{{{scale}}}" for n in (a, b, c)]
    assert verify(gold, f"{divided[0]}x^2+{divided[1]}y={divided[2]}").verdict == "correct"
    assert verify(gold, f"{a}x^2+({b})y={c + scale}").verdict == "wrong"


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_order_matters_in_points_and_not_in_lists(numbers, rng):
    shuffled = list(numbers)
    rng.shuffle(shuffled)
    one, other = ", ".join(map(str, numbers)), ",".join(map(str, shuffled))
    assert verify(one, other).verdict == "correct"
    assert verify(f"\\{{{one}\\}}", other).verdict == "correct"
    assert verify(f"({one})", f"({other})").verdict == ("correct" if shuffled == numbers else "wrong")


@given(st.text(max_size=40))
def test_any_text_equals_itself_and_gets_some_verdict(text):
    if text.strip():
        assert verify(text, f" {text} ").verdict == "correct"
    assert verify("5", text).verdict in ("correct", "wrong", "error")


def test_agreement_with_the_cases_of_four_libraries(shared):
    rows = stored_outputs.equivalence_cases(shared)
    with Verifiers(1) as verifiers:
        verdicts = [j.verdict for j in verifiers.judge((row.gold, row.answer) for row in rows)]
    agree = sum((verdict == "correct") == row.verdict for row, verdict in zip(rows, verdicts, strict=True))
    assert len(rows) == 277
    assert agree >= 233
    # Whoever says that two answers differ is agreed with in every case.
    assert all(v == "wrong" for row, v in zip(rows, verdicts, strict=True) if not row.verdict)


@pytest.mark.slow
def test_agreement_with_stored_verdicts(shared):
    rows = list(stored_outputs.outputs(shared))
    with Verifiers(1) as verifiers:
        verdicts = [j.verdict for j in verifiers.judge((row.gold, row.answer) for row in rows)]
    judged = [
        (row.verdict, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if row.verdict is not None and verdict != "missing"
    ]
    agree = sum(stored == (verdict == "correct") for stored, verdict in judged if verdict != "error")
    assert agree / len(judged) >= 0.985
    assert verdicts.count("error") <= 5
    # Each of the 500 golds has a response that closed its thinking or is missing; all but a few are right.
    long_cot = [verdict for row, verdict in zip(rows, verdicts, strict=True) if row.source == "long_cot"]
    assert long_cot.count("correct") >= 332 and long_cot.count("missing") == 162
