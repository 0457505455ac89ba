"""MMLU-Pro and GPQA-Diamond: items in the published layouts, prompts and verdicts of both protocols."""

import csv
import json
from pathlib import Path

import pytest

from dipscope.benchmarks.choice import BENCHMARKS, GPQADiamond, MMLUPro
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split

WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")


@pytest.fixture
def mmlu(tmp_path: Path) -> Path:
    rows = [
        {"question_id": i, "question": f"Which is number {i}?", "options": list(WORDS[: 3 + i % 8]),
         "answer": "ABCDEFGHIJ"[i % 3], "answer_index": i % 3, "cot_content": "", "category": "law"}
        for i in range(40)
    ]  # fmt: skip
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def gpqa(tmp_path: Path) -> Path:
    path = tmp_path / "gpqa_diamond.csv"
    with path.open("w", newline="") as file:
        names = ["Question", "Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)), "Subdomain"]
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(
            [f"Question {i}, which?\n", f"yes {i}\n", "no", "not", "never", "x"] for i in range(60)
        )
    return path


def test_mmlu_pro_keeps_the_published_order(mmlu: Path) -> None:
    items = MMLUPro(mmlu).items(100, "test")
    assert len(items) == len({i.id for i in items}) == 40
    for item in items:
        right = "ABC".index(item.gold["letter"])
        assert item.gold["options"] == list(WORDS[: len(item.gold["options"])])
        assert item.options[0] == f" {WORDS[right]}" and set(item.options) == {
            f" {w}" for w in item.gold["options"]
        }
        last = len(item.gold["options"]) - 1
        assert f"\n{'ABCDEFGHIJ'[last]}. {WORDS[last]}\n" in item.prompt and "\\boxed{}" in item.prompt
        assert f" or {'ABCDEFGHIJ'[last]})" in item.prompt  # never a letter that is no option


def test_gpqa_options_are_shuffled_by_content_alone(gpqa: Path, tmp_path: Path) -> None:
    items = GPQADiamond(gpqa).items(100, "test")
    assert len(items) == 60
    spread = [sum(i.gold["letter"] == letter for i in items) for letter in "ABCD"]
    assert min(spread) >= 6  # 15 expected of each
    for item in items:
        said = item.gold["options"]["ABCD".index(item.gold["letter"])]
        assert said.startswith("yes") and item.options[0] == f" {said}" and not said.endswith("\n")
    with gpqa.open(newline="") as file:
        head, *rows = csv.reader(file)
    other = tmp_path / "other.csv"
    with other.open("w", newline="") as file:
        csv.writer(file).writerows([head, *reversed(rows)])
    assert GPQADiamond(other).items(100, "test") == items


def test_gpqa_protocols_show_options_differently(gpqa: Path) -> None:
    strict, paper = (GPQADiamond(gpqa, p).items(1, "test")[0].prompt for p in ("strict", "paper"))
    assert "Options: A) " in paper and ", B) " in paper
    assert "\nA) " in strict and "\nB) " in strict


@pytest.mark.parametrize(
    ("text", "strict", "paper"),
    [
        (r"<think>hm</think>\boxed{RIGHT}", "correct", "correct"),
        (r"<think>hm</think>\boxed{(RIGHT)}", "correct", "missing"),
        (r"<think>\boxed{RIGHT}", "missing", "correct"),  # never closed
        (r"<think>\boxed{RIGHT}</think>I do not know.", "missing", "correct"),
        (r"<think>hm</think>\boxed{WRONG}", "wrong", "wrong"),
        ("", "missing", "missing"),
    ],
)
def test_verdicts_of_both_protocols(gpqa: Path, text: str, strict: str, paper: str) -> None:
    for protocol, verdict in (("strict", strict), ("paper", paper)):
        benchmark = GPQADiamond(gpqa, protocol)
        item = benchmark.items(1, "test")[0]
        right = item.gold["letter"]
        said = text.replace("RIGHT", right).replace("WRONG", "A" if right != "A" else "B")
        judged = benchmark.judge(item, split(said))
        assert judged.verdict == verdict and judged.score == float(verdict == "correct")
        assert (judged.extracted is None) == (verdict == "missing")


def test_mmlu_pro_first_match_against_last_box(mmlu: Path) -> None:
    for protocol, verdict in (("strict", "correct"), ("paper", "wrong")):
        benchmark = MMLUPro(mmlu, protocol)
        item = benchmark.items(1, "test")[0]
        wrong = "A" if item.gold["letter"] != "A" else "B"
        text = f"<think>The answer is {wrong}? No.</think>\\boxed{{{item.gold['letter']}}}"
        assert benchmark.judge(item, split(text)).verdict == verdict


def test_scorers_say_which_protocol(mmlu: Path) -> None:
    assert [MMLUPro(mmlu, p).scorer for p in ("strict", "paper")] == ["choice/1+strict", "choice/1+paper"]
    with pytest.raises(DipscopeError, match=r"paper/mmlu_pro: there is no protocol 'loose'"):
        MMLUPro(mmlu, "loose")


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_another_layout_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "Question": "q", "choices": ["a", "b"]}\n')
    with pytest.raises(DipscopeError, match="the items lack the field"):
        BENCHMARKS[name](path).items(1, "test")


def test_published_rows(shared: Path, tmp_path: Path) -> None:
    """The rows of the real set, as its file has them."""
    (file,) = (shared / "mmlu_pro").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    items = MMLUPro(file, "paper").items(1000, "test")
    assert len(items) == len(rows) == 502
    letters = {row["question"]: row["answer"] for row in rows}
    assert all(
        letters[next(q for q in letters if f"\n{q}\nOptions:" in i.prompt)] == i.gold["letter"] for i in items
    )
    assert len(MMLUPro(file).items(1000, "test")) + len(MMLUPro(file).items(1000, "dev")) == 502
