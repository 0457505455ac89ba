"""Mathematics: items in the published layouts, both protocols, and the likelihood twin's near misses."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.benchmarks.math import AIME24, AIME25, BENCHMARKS, GSM8K, Math500, twin
from dipscope.scoring import latex, numbers, verifiers
from dipscope.scoring.base import MISSING
from dipscope.scoring.thinking import split
from dipscope.scoring.verifiers import Verifiers

GOLDS = ("42", r"\frac{3}{4}", r"\left( 3, \frac{\pi}{2} \right)", r"2\sqrt{3}", "x^2+1", "\\text{Evelyn}")


@pytest.fixture
def math500(tmp_path: Path) -> Path:
    rows = [
        {"problem": f"Problem {i}.", "solution": f"We see that it is $\\boxed{{{gold}}}$.", "answer": gold}
        for i, gold in enumerate(GOLDS)
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_items(math500: Path) -> None:
    strict, paper = (Math500(math500, p).items(10, "test") for p in ("strict", "paper"))
    assert [i.id for i in strict] == [i.id for i in paper] and len(strict) == len(GOLDS)
    assert {i.gold for i in strict} == set(GOLDS)
    assert all("\\boxed{}" in i.prompt and i.prompt.startswith("Problem ") for i in strict)
    for one, other in zip(strict, paper, strict=True):
        assert other.gold == f"We see that it is $\\boxed{{{one.gold}}}$."
        assert other.prompt == one.prompt.replace("\n", "\n ")
        assert one.options == other.options


@pytest.mark.parametrize(
    ("text", "strict", "paper"),
    [
        (r"<think>hm</think>It is $\boxed{GOLD}$.", "correct", "correct"),
        (r"<think>It is $\boxed{GOLD}$, I think", "missing", "correct"),  # never closed
        (r"<think>It is $\boxed{GOLD}$.</think>I do not know.", "missing", "correct"),
        (r"<think>hm</think>It is $\boxed{-17}$.", "wrong", "wrong"),
        ("", "missing", "missing"),
        ("I give up.", "missing", "missing"),
    ],
)
def test_verdicts_of_both_protocols(math500: Path, text: str, strict: str, paper: str) -> None:
    for protocol, verdict in (("strict", strict), ("paper", paper)):
        benchmark = Math500(math500, protocol)
        gold = {i.id: i.gold for i in Math500(math500).items(10, "test")}
        for item in benchmark.items(10, "test")[:3]:
            judged = benchmark.judge(item, split(text.replace("GOLD", gold[item.id])))
            assert judged.verdict == verdict and judged.score == float(verdict == "correct")


def test_what_math_verify_cannot_finish_scores_nothing_under_paper(
    math500: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Verifiers(1, cpu_seconds=0.3, rule="whole") as pool:
        monkeypatch.setattr(verifiers, "shared", lambda rule: pool)
        benchmark = Math500(math500, "paper")
        text = "What are $x$ and $y$? " + r"\boxed{}. " * 1500  # as base models end that know no end
        judged = benchmark.judge(benchmark.items(1, "test")[0], split(text))
    assert pool.reasons["out of time"] == 1
    assert judged == MISSING


def test_aime_and_gsm8k_layouts(tmp_path: Path) -> None:
    aime = tmp_path / "aime.jsonl"
    aime.write_text(
        '{"id": 60, "problem": "How many?", "solution": "So 204.", "answer": "204", "url": "u"}\n'
    )
    for made in (AIME24, AIME25):
        (item,) = made(aime).items(5, "test")
        assert item.gold == "204" and item.options[0] == "204}" and len(item.options) == 4
    assert AIME24(aime, "paper").items(1, "test")[0].gold == "So 204."
    gsm = tmp_path / "gsm.jsonl"
    gsm.write_text(json.dumps({"question": "Eggs?", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018"}) + "\n")
    (item,) = GSM8K(gsm).items(5, "test")
    assert item.gold == "1018" and item.prompt.startswith("Eggs?\n")
    assert GSM8K(gsm).judge(item, split("So it is\nAnswer: 1,018 eggs")).verdict == "correct"


@given(st.integers(0, 10**6), st.text("0123456789abcdef", min_size=16, max_size=16))
def test_near_misses_are_other_numbers_close_by(gold: int, key: str) -> None:
    options = twin(str(gold), key)
    assert options == twin(str(gold), key) and options[0] == str(gold) and len(options) == 4
    values = [int(option) for option in options]
    assert len(set(values)) == 4 and all(0 < abs(v - gold) <= 10 for v in values[1:])


@pytest.mark.parametrize("gold", [r"\frac{1}{2}", "3.75", "-4", r"10\%", "10,080", r"\frac{14}{3}"])
def test_near_misses_of_other_numbers(gold: str) -> None:
    values = [numbers.number(latex.clean(option)) for option in twin(gold, "0" * 16)]
    assert len(values) > 1 and None not in values
    assert len({value.value for value in values if value}) == len(values)


@pytest.mark.parametrize("gold", [r"2\sqrt{3}", "x^2+1", "\\text{Evelyn}", "(1,2)", "1" * 40])
def test_what_is_no_short_number_has_no_twin(gold: str) -> None:
    assert twin(gold, "0" * 16) == ()


def test_published_rows(shared: Path) -> None:
    for name, folder, n in (("paper/math500", "math500", 500), ("paper/aime24", "aime24", 30),
                            ("public/gsm8k", "gsm8k", 1319)):  # fmt: skip
        for protocol in ("strict", "paper"):
            benchmark = BENCHMARKS[name](shared / folder / "test.jsonl", protocol)
            items = benchmark.items(5000, "test")
            assert len(items) == n if protocol == "paper" or n <= 200 else 0.7 * n < len(items) < 0.8 * n
            with_twin = sum(bool(i.options) for i in items) / len(items)
            assert with_twin == 1 if name != "paper/math500" else 0.7 < with_twin < 0.9


def test_published_solutions_are_right_under_both_protocols(shared: Path) -> None:
    path = shared / "math500/test.jsonl"
    solutions = {r["problem"]: r["solution"] for r in map(json.loads, path.read_text().splitlines())}
    for protocol in ("strict", "paper"):
        benchmark = Math500(path, protocol)
        wrong = [
            item.prompt
            for item in benchmark.items(500, "test")
            if benchmark.judge(item, split(solutions[item.prompt.rpartition("\n")[0]])).verdict != "correct"
        ]
        assert len(wrong) <= 5, wrong
