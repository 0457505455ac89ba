"""IFEval through lm-eval's checker: the official verdicts, the parts of a record, the paper's cut."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dipscope.benchmarks import ifeval
from dipscope.benchmarks.ifeval import IFEval, levels, without_thinking
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split

# The first row as the Hub has it, where every instruction has all arguments; the second as google-research.
ROWS = [
    {"key": 1, "prompt": "Write two sentences in lower case.",
     "instruction_id_list": ["change_case:english_lowercase", "length_constraints:number_sentences"],
     "kwargs": [{"num_sentences": None, "relation": None}, {"num_sentences": 3, "relation": "less than"}]},
    {"key": 2, "prompt": "Shout three words or more.",
     "instruction_id_list": ["change_case:capital_word_frequency"],
     "kwargs": [{"capital_frequency": 3, "capital_relation": "at least"}]},
]  # fmt: skip


NOTHING = {"strict": [False, False], "loose": [False, False]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ifeval") / "ifeval_input_data.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return made


def judged(path: Path, key: int, text: str, protocol: str = "strict") -> tuple[str, dict[str, list[bool]]]:
    benchmark = IFEval(path, protocol)
    (item,) = (i for i in benchmark.items(5, "test") if i.gold["prompt"] == ROWS[key - 1]["prompt"])
    found = benchmark.judge(item, split(text))
    return found.verdict, json.loads(found.extracted or "{}")


def test_each_instruction_strict_and_loose(path: Path) -> None:
    assert judged(path, 1, "it is dr. who. he is here.") == (
        "correct",
        {"strict": [True, True], "loose": [True, True]},
    )
    assert judged(path, 1, "It is here. So am i. And you.") == ("wrong", NOTHING)
    # Without its first line the answer is in lower case.
    verdict, found = judged(path, 1, "Sure:\nit is here.")
    assert verdict == "wrong" and found["strict"] == [False, True] and found["loose"] == [True, True]


def test_words_are_told_apart_without_downloads(path: Path) -> None:
    assert judged(path, 2, "I SHOUT, LOUD.")[0] == "correct"
    assert judged(path, 2, "I SHOUT, loud.")[0] == "wrong"


def test_only_the_answer_counts(path: Path) -> None:
    assert judged(path, 1, "<think>\nOH NO\n</think>\n\nit is here.")[0] == "correct"
    assert judged(path, 1, "<think>\nit is here.") == ("missing", NOTHING)
    assert judged(path, 1, "<think>\nx\n</think>\n\n") == ("missing", NOTHING)


def test_as_in_the_paper(path: Path) -> None:
    assert judged(path, 1, "<think>\nOH NO\n</think>\n\nit is here.", "paper")[0] == "correct"
    assert judged(path, 1, "<think>\nit is here.", "paper")[0] == "correct"  # unclosed: the whole text counts
    assert judged(path, 1, "", "paper") == ("wrong", NOTHING)
    strict, paper = (IFEval(path, p).items(1, "test")[0] for p in ("strict", "paper"))
    assert paper.prompt == f"Question: {strict.prompt}\nAnswer:" and paper.gold == strict.gold


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>\n\n b \n", "b"), ("a</think>b", "b"), ("<think>a", "<think>a"), ("b", "b"),
        ("x <think>a</think> y", "x y"), ("<think>a<|/think|>b", "b"), ("a</think>b</think> c", "c"),
    ],
)  # fmt: skip
def test_the_papers_cut(text: str, left: str) -> None:
    assert without_thinking(text) == left


def test_levels() -> None:
    records = [
        '{"strict": [true, false], "loose": [true, true]}',
        '{"strict": [true], "loose": [true]}',
        None,
    ]
    assert levels(records) == {
        "prompt_strict": 0.5, "instruction_strict": 2 / 3, "prompt_loose": 1.0, "instruction_loose": 1.0,
    }  # fmt: skip


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "langdetect":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(ifeval, "version", version)
    with pytest.raises(
        DipscopeError, match=r"langdetect is not installed; .*dipscope\[ifeval\]|langdetect is not"
    ):
        IFEval()


def test_a_broken_row_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({**ROWS[1], "instruction_id_list": ["no:such_instruction"]}) + "\n")
    benchmark = IFEval(broken)
    assert benchmark.judge(benchmark.items(1, "test")[0], split("HELLO")).verdict == "error"


def test_the_checker_is_imported_by_its_worker_alone() -> None:
    code = (
        "import sys, dipscope.benchmarks.ifeval; print({'lm_eval', 'nltk', 'langdetect'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_official_verdicts(shared: Path) -> None:
    """google-research's checker on GPT-4's published responses: every instruction, strict and loose."""
    folder = shared / "ifeval"

    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    responses = {r["prompt"]: r["response"] for r in rows("input_response_data_gpt4_20231107_145030.jsonl")}
    keys = {r["prompt"]: r["key"] for r in rows("input_data.jsonl")}
    official = {r["key"]: r for r in rows("official_verdicts_gpt4.jsonl")}
    benchmark = IFEval(folder / "input_data.jsonl", "paper")
    compared = 0
    for item in benchmark.items(1000, "test"):
        wanted = official.get(keys[item.gold["prompt"]])
        if wanted is None or wanted["unstable_across_seeds"]:
            continue
        found = benchmark.judge(item, split(responses[item.gold["prompt"]]))
        told = json.loads(found.extracted or "{}")
        assert (told["strict"], told["loose"]) == (wanted["strict"], wanted["loose"]), wanted["key"]
        assert (found.verdict == "correct") == wanted["prompt_strict"] == all(told["strict"])
        assert all(told["loose"]) == wanted["prompt_loose"]
        compared += 1
    assert compared == 538
