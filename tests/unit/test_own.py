"""One's own benchmarks: tables of prompts and golds, and Python files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.benchmarks import own, placeless
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split


def table(tmp_path, *rows):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return own.get("own/mine", str(path))


def verdict(tmp_path, row, text):
    benchmark = table(tmp_path, {"prompt": "Q", **row})
    (item,) = benchmark.items(5, "test")
    return benchmark.judge(item, split(text)).verdict


@pytest.mark.parametrize(
    ("row", "text", "wanted"),
    [
        ({"gold": "Paris"}, "**Paris.**", "correct"),
        ({"gold": "Paris"}, "It is in France.\nAnswer: paris", "correct"),
        ({"gold": "Paris"}, "Paris is nice", "wrong"),
        ({"gold": ["Paris", "Lutetia"]}, "lutetia", "correct"),
        ({"gold": "Paris"}, "<think>Paris</think>Rome", "wrong"),
        ({"gold": "Paris"}, "<think>Paris", "missing"),
        ({"gold": "Paris"}, "word " * 200, "missing"),
        ({"gold": 0.5}, r"\boxed{\frac{1}{2}}", "correct"),
        ({"gold": "1,000"}, "Answer: 1000", "correct"),
        ({"gold": 7}, "seven, or 7", "missing"),
        ({"gold": "0.5", "scorer": "exact"}, r"\boxed{1/2}", "wrong"),
        ({"gold": r"\frac{1}{2}"}, "Answer: 0.5", "correct"),
        ({"gold": ["1", "2"]}, "Answer: 2", "correct"),
        ({"gold": ["1", "2"]}, "Answer: 3", "wrong"),
        ({"gold": "B", "options": ["red", "blue"], "scorer": "choice"}, "The answer is (B).", "correct"),
        ({"gold": "blue", "options": ["red", "blue"], "scorer": "choice"}, r"\boxed{A}", "wrong"),
        ({"gold": "blue", "options": ["red", "blue"], "scorer": "choice"}, "Hm.", "missing"),
    ],
)
def test_rows_are_judged_by_the_scorer_of_their_gold_or_of_their_column(tmp_path, row, text, wanted):
    assert verdict(tmp_path, row, text) == wanted


@pytest.mark.parametrize(
    ("gold", "scorer"),
    [("12", "math"), ("-3.5", "math"), ("1/2", "math"), ("$x$", "math"), ("x^2", "math"), ("Paris", "exact"),
     ("yes", "exact"), ("B", "exact"), ("12 monkeys in a barrel", "exact")],
)  # fmt: skip
def test_the_form_of_a_gold_chooses_its_scorer(gold, scorer):
    assert own.form(gold) == scorer


@given(st.text())
def test_normalisation_is_stable_and_ignores_case_space_and_marks_around(text):
    once = own.normal(text)
    assert own.normal(once) == once
    assert own.normal(f"  **{text}**. ") == once or not once.strip(" \"'`*_.,;:!?()[]“”‘’")


def test_items_carry_what_the_row_says_and_the_right_option_first(tmp_path):
    row = {"id": "q1", "prompt": "Colour?", "gold": "B", "options": ["red", "blue", "green"], "cluster": "c"}
    benchmark = table(tmp_path, row | {"scorer": "choice"}, {"prompt": "Two?", "gold": 2})
    items = {item.prompt: item for item in benchmark.items(9, "test")}
    assert len(items) == 2 and len(benchmark.items(1, "test")) == 1
    assert (items["Colour?"].id, items["Colour?"].cluster) == ("q1", "c")
    assert items["Colour?"].options == ("blue", "red", "green")
    assert items["Two?"].options == () and len(items["Two?"].id) == 16


def test_ids_and_their_order_follow_content_and_a_changed_file_is_read_again(tmp_path):
    rows = [{"prompt": f"Q{i}", "gold": "a"} for i in range(20)]
    first = table(tmp_path, *rows)
    other = table(tmp_path, *reversed(rows))
    assert first.items(20, "test") == other.items(20, "test")
    assert first.scorer != other.scorer
    changed = table(tmp_path, *({**row, "gold": "b"} for row in rows))
    assert [i.id for i in changed.items(20, "test")] == [i.id for i in first.items(20, "test")]
    assert changed.items(1, "test")[0].gold["golds"] == ["b"] and changed.scorer != other.scorer
    assert changed is own.get("own/mine", str(tmp_path / "items.jsonl"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "Q"}, "no gold"),
        ({"gold": "x"}, "no prompt"),
        ({"prompt": "Q", "gold": "x", "scorer": "rouge"}, "no scorer 'rouge'"),
        ({"prompt": "Q", "gold": "x", "options": ["a", "b"]}, "none of the options"),
        ({"prompt": "Q", "gold": "C", "options": ["a", "b"], "scorer": "choice"}, "none of the options"),
        ({"prompt": "Q", "gold": "x", "scorer": "choice"}, "needs options"),
        ({"prompt": "Q", "gold": "x", "options": "x"}, "no list"),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path, row, says):
    benchmark = table(tmp_path, {"prompt": "fine", "gold": "1"}, row)
    with pytest.raises(DipscopeError, match=says) as raised:
        benchmark.items(5, "test")
    assert "items.jsonl" in raised.value.where and "2" in raised.value.where


def test_two_rows_with_one_id_are_refused(tmp_path):
    benchmark = table(tmp_path, {"id": 1, "prompt": "a", "gold": "x"}, {"id": 1, "prompt": "b", "gold": "x"})
    with pytest.raises(DipscopeError, match="second item has the id '1'"):
        benchmark.items(5, "test")


def test_a_table_has_no_domain_of_its_own(tmp_path):
    benchmark = table(tmp_path, {"prompt": "Q", "gold": "x"})
    placeless.check(benchmark, "safety")
    placeless.check(code(tmp_path, CODE), None)
    with pytest.raises(DipscopeError, match="needs the domain") as raised:
        placeless.check(benchmark, None)
    assert raised.value.where == 'measure.benchmark."own/mine".domain'


@pytest.mark.parametrize(("path", "says"), [(None, "needs its file"), ("absent.jsonl", "no file")])
def test_a_benchmark_without_a_file_is_refused(path, says):
    with pytest.raises(DipscopeError, match=says):
        own.get("own/mine", path)


CODE = '''
from dipscope.scoring.base import Item, Judgement


class Reverse:
    """Words to be spelt backwards."""

    name, domain, scorer, max_tokens = "reverse", "ood_reasoning", "reverse/1", 64
    words = ("stone", "river", "cloud")

    def items(self, n, split):
        return [Item(word, f"Spell {word} backwards.", word[::-1]) for word in self.words][:n]

    def judge(self, item, response):
        said = response.answer.strip().lower()
        return Judgement.of(said == item.gold, said)


BENCHMARK = Reverse()
'''


def code(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return own.get("own/reverse", str(path))


def test_a_python_file_is_a_benchmark_under_the_name_of_the_study(tmp_path):
    benchmark = code(tmp_path, CODE)
    assert (benchmark.name, benchmark.domain, benchmark.max_tokens) == ("own/reverse", "ood_reasoning", 64)
    item, second = benchmark.items(2, "test")
    assert benchmark.judge(item, split("Enots")).verdict == "correct"
    assert benchmark.judge(second, split("river")).verdict == "wrong"
    changed = code(tmp_path, CODE.replace(".lower()", ""))
    assert changed.judge(item, split("Enots")).verdict == "wrong"
    assert changed.scorer != benchmark.scorer and changed.scorer.startswith("reverse/1+")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "defines no BENCHMARK"),
        ("1 / 0", "ZeroDivisionError"),
        ("class B: name = 'b'\nBENCHMARK = B()", "lacks domain, scorer, max_tokens, items, judge"),
        (CODE.replace('"ood_reasoning"', '"sports"'), "no domain 'sports'"),
    ],
)
def test_a_python_file_that_is_no_benchmark_is_one_line(tmp_path, text, says):
    with pytest.raises(DipscopeError, match=says):
        code(tmp_path, text)


def test_items_of_a_python_file_with_one_id_are_refused(tmp_path):
    with pytest.raises(DipscopeError, match="same id"):
        code(tmp_path, CODE.replace("Item(word,", "Item('one',")).items(3, "test")


def test_the_example_of_the_documentation_works(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    (example,) = [part.partition("```")[0] for part in text.split("```python\n")[1:] if "BENCHMARK" in part]
    benchmark = code(tmp_path, example)
    (item,) = benchmark.items(1, "test")
    said = [benchmark.judge(item, split(t)).verdict for t in ("Enots", "stone", "<think>enots")]
    assert said == ["correct", "wrong", "missing"]
