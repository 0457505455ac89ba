"""AlpacaEval, HaluEval and TruthfulQA, from rows of our own and from the public files."""

import csv
import json
from collections import Counter

import pytest

from dipscope.benchmarks.judged import BENCHMARKS, said_as_in_the_paper, said_strictly
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Item
from dipscope.scoring.thinking import split


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


QA = {"knowledge": "Rome is in Italy.", "right_answer": "Italy", "hallucinated_answer": "France"}


def qa(n):
    return [{**QA, "question": f"Where is Rome, no. {k}?"} for k in range(n)]


def test_one_of_two_answers_is_shown_and_the_gold_says_which(tmp_path):
    items = BENCHMARKS["paper/halueval"](path=jsonl(tmp_path / "q.jsonl", *qa(200))).items(999, "test")
    for item in items:
        shown = "France" if item.gold == "yes" else "Italy"
        assert f"Answer:\n{shown}" in item.prompt and item.prompt.count("Italy") == 1 + (shown == "Italy")
        assert item.options[0].lower() == item.gold and set(item.options) == {"Yes", "No"}
    assert 70 < Counter(i.gold for i in items)["yes"] < 130


def test_the_tasks_are_told_apart_by_their_fields(tmp_path):
    rows = [
        *qa(2),
        {
            "knowledge": "k",
            "dialogue_history": "[Human]: hi",
            "right_response": "r",
            "hallucinated_response": "h",
        },
        {"document": "d", "right_summary": "r", "hallucinated_summary": "h"},
        {"user_query": "u", "chatgpt_response": "c", "hallucination": "yes"},
    ]
    benchmark = BENCHMARKS["paper/halueval"](path=jsonl(tmp_path / "all.jsonl", *rows))
    asked = [i.prompt for i in benchmark.items(99, "test")]
    assert len(asked) == 5
    assert sum("Dialogue:\n[Human]: hi" in a for a in asked) == sum("Summary:\n" in a for a in asked) == 1
    assert sum("Request:\nu" in a for a in asked) == 1


def test_rows_without_a_question_are_told(tmp_path):
    with pytest.raises(DipscopeError, match="lack the field 'question'"):
        BENCHMARKS["paper/halueval"](path=jsonl(tmp_path / "x.jsonl", {"text": "t"})).items(1, "test")


@pytest.mark.parametrize(
    "text, strictly, paper",
    [
        ("Yes", "yes", "yes"),
        ("no.", "no", "no"),
        ("**No**, it is right.", "no", "no"),
        ("Yes, since no such thing exists.", "yes", "no"),
        ("It says no more than is given.\nJudgement: Yes", "yes", "yes"),
        ("There is no hallucination in it.", None, "no"),
        ("Let me see.\nNo\n", "no", "no"),
        ("Perhaps", None, "perhaps"),
        ("Nothing to add", None, "nothing to add"),
        ("", None, None),
        ("Answer: Yes or No", None, "no"),
        ("Yes/No", None, "no"),
        ("Answer: yes or no?\nNo", "no", "no"),
    ],
)
def test_yes_and_no_are_read_by_a_stated_precedence(text, strictly, paper):
    assert (said_strictly(text), said_as_in_the_paper(text)) == (strictly, paper)


def test_thinking_does_not_answer_except_where_it_never_ends_under_the_papers_protocol():
    item = Item("i", "p", "yes")
    strict, paper = (BENCHMARKS["paper/halueval"](protocol=p) for p in ("strict", "paper"))
    for text, wanted in (
        ("<think>no</think>\nYes", ("correct", "correct")),
        ("<think>no, yes", ("missing", "correct")),
        ("", ("missing", "missing")),
    ):
        assert tuple(b.judge(item, split(text)).verdict for b in (strict, paper)) == wanted


def test_halueval_reads_the_public_rows(shared):
    for name, size in (("qa_one_turn_500", 500), ("qa_multi_turn_500", 500), ("general_first500", 500)):
        path = shared / "halueval" / f"{name}.jsonl"
        items = BENCHMARKS["paper/halueval"](path=path, protocol="paper").items(9999, "test")
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        # rows that are asked about the same thing are one item
        assert size - 15 <= len(items) <= size
        if name.startswith("general"):
            said = Counter(r["hallucination"] for r in rows)
            made = Counter(i.gold for i in items)
            assert abs(made["yes"] - said["yes"]) <= size - len(items)


TRUTH = {
    "question": "What is the capital of Italy?",
    "best_answer": "Rome",
    "correct_answers": ["Rome", "Rome is the capital of Italy"],
    "incorrect_answers": ["Milan", "Milan is the capital of Italy"],
}


def test_truthfulqa_has_its_mc1_as_options_and_its_judge_sees_the_bare_question(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", TRUTH)
    strict, paper = (BENCHMARKS["paper/truthfulqa"](path=path, protocol=p) for p in ("strict", "paper"))
    (item,), (wrapped,) = strict.items(9, "test"), paper.items(9, "test")
    assert item.options == ("Rome", "Milan", "Milan is the capital of Italy") and item.id == wrapped.id
    assert item.prompt == TRUTH["question"] and wrapped.prompt == f"\n\nQ: {TRUTH['question']}"
    assert paper.case(wrapped, " Rome\n").question == TRUTH["question"]
    assert paper.case(wrapped, " Rome\n").response == "Rome"
    assert (strict.rubric, paper.rubric) == ("truth", "info")


def test_truthfulqa_offline_prefers_the_nearer_reference(tmp_path):
    benchmark = BENCHMARKS["paper/truthfulqa"](path=jsonl(tmp_path / "t.jsonl", TRUTH))
    (item,) = benchmark.items(9, "test")
    assert benchmark.judge(item, split("It is Rome.")).verdict == "correct"
    assert benchmark.judge(item, split("It is Milan.")).verdict == "wrong"
    assert benchmark.judge(item, split("<think>Rome")).verdict == "missing"
    assert benchmark.scorer.startswith("offline-overlap/")


def test_truthfulqa_reads_the_public_file(shared):
    path = shared / "truthfulqa" / "truthfulqa_en.jsonl"
    items = BENCHMARKS["paper/truthfulqa"](path=path).items(9999, "test")
    items += BENCHMARKS["paper/truthfulqa"](path=path).items(9999, "dev")
    by_question = {i.prompt: i for i in items}
    assert len(by_question) == 817
    same = 0
    with path.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            mc1 = row["mc1_targets"]
            assert mc1["labels"] == [1] + [0] * (len(mc1["choices"]) - 1)
            same += by_question[row["question"].strip()].options == tuple(c.strip() for c in mc1["choices"])
    assert same == 797  # of 817; the others are worded differently in the two places where they are published


def test_truthfulqa_offline_agrees_with_people_as_often_as_the_docs_say(shared):
    """A stand-in that is known to be weak: 'always true' would agree on 207 of the 300."""
    benchmark, table = BENCHMARKS["paper/truthfulqa"](), Counter()
    with (shared / "truthfulqa" / "human_labels_en.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            names = {"right": "correct_answers", "wrong": "incorrect_answers"}
            gold = {k: [a for a in row[name].split("\n") if a.strip()] for k, name in names.items()}
            table[
                row["truthfulness"], benchmark.judge(Item("i", "p", gold), split(row["model_answer"])).verdict
            ] += 1
    assert table["yes", "correct"] + table["no", "wrong"] == 195 and table.total() == 300
    assert table["no", "wrong"] == 70 and table["no", "correct"] == 23


def test_alpacaeval_has_no_verdict_without_a_reward_model(tmp_path):
    row = {"instruction": "Write a line.", "output": "A line.", "generator": "g", "dataset": "d"}
    path = jsonl(tmp_path / "a.jsonl", row)
    strict, paper = (BENCHMARKS["paper/alpaca_eval"](path=path, protocol=p) for p in ("strict", "paper"))
    (item,) = strict.items(9, "test")
    assert strict.judge(item, split("Here it is.")).verdict == "error"
    assert strict.judge(item, split("<think>Hm")).verdict == "missing"
    assert strict.case(item, "x").right == ("A line.",) and paper.case(item, "x").right == ()


def test_alpacaeval_reads_the_public_files(shared):
    for name in ("text_davinci_003.json", "gpt4_1106_preview.json.gz"):
        items = BENCHMARKS["paper/alpaca_eval"](path=shared / "alpaca_eval" / name, protocol="paper").items(
            9999, "test"
        )
        assert len(items) >= 800
