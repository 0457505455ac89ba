"""The final answer of a response."""

import gzip
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.scoring.answers import final_answer, last_box
from dipscope.scoring.verify import verify


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"\boxed{1} so \boxed{2}.", "2"),
        (r"\fbox{7}", "7"),
        (r"\\boxed{8}", "8"),
        (r"\boxed 5 is it", "5"),
        (r"$\boxed 5+1$ is it", "5+1"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"\boxed{4} \boxed{} \boxed{ }", "4"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"} \boxed{6} {", "6"),
        (r"\boxedness{3}", None),
        (r"\boxed{1}, \boxed{2}", "1, 2"),
        (r"$\boxed{3 + \sqrt{2}}$ and $\boxed{3 - \sqrt{2}}$", r"3 + \sqrt{2}, 3 - \sqrt{2}"),
        (r"\boxed{1}, \boxed{1}", "1"),
        (r"\boxed{1}. \boxed{2}", "2"),
        ("**Answer:** 12", "12"),
        ("Answer: 3\nAnswer: 4.\nbye", "4"),
        ("Answer:\n\n(3 + 4) * 5", "(3 + 4) * 5"),
        ("The final answer is $4$. I hope it is correct.", "$4$"),
        (r"Answer: 3, that is \boxed{4}", "4"),
        ("no answer here", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize("marks", [("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>")])
def test_never_from_inside_the_thinking(marks):
    start, end = marks
    assert final_answer(rf"{start}\boxed{{1}}{end} none") is None
    assert final_answer(rf"{start}\boxed{{1}} Answer: 2") is None
    assert final_answer(rf"\boxed{{1}}{end}\boxed{{2}}") == "2"


def test_a_prompt_that_opened_the_thinking():
    assert final_answer(r"\boxed{1}", opened=True) is None
    assert final_answer(r"\boxed{1}</think>\boxed{2}", opened=True) == "2"


@given(st.text(alphabet="ab{}\\ 1,$\n"), st.text(alphabet="ab1+ ", min_size=1).filter(str.strip))
def test_a_box_at_the_end_is_found_whatever_stands_before(before, content):
    # A comma before the box could join it with another one.
    assert last_box(f"{before} so then \\boxed{{{content}}}") == content.strip()


@given(
    st.recursive(
        st.sampled_from(["x", r"\}", r"\{", "2"]), lambda s: st.lists(s).map("".join).map("{{{}}}".format)
    )
)
def test_balanced_content_comes_back_whole(content):
    assert last_box(f"\\boxed{{({content})}} }}}} {{") == f"({content})"


HOSTILE = {
    "open boxes": "\\boxed{" * 150_000,
    "nested boxes": "\\boxed{" * 75_000 + "5" + "}" * 75_000,
    "nested blank boxes": "\\boxed{" * 75_000 + " " * 200_000 + "}" * 75_000,
    "bare boxes": "\\boxed" * 170_000,
    "bare boxes apart": ("\\boxed" + " " * 1000) * 1000,
    "markers": "answer:" * 150_000,
    "markers apart": ("answer:" + " " * 1000) * 1000,
    "stars": "answer" + "*" * 10**6,
    "braces": "{" * 10**6,
    "backslashes": "\\" * 10**6,
    "joined boxes": "\\boxed{1}," * 100_000,
    "a long gap": "\\boxed{1}" + "," * 10**6 + "\\boxed{2}",
    "blanks": "\\boxed" + " " * 10**6,
    "thoughts": "<think>" * 150_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_takes_linear_time(name):
    begun = time.process_time()
    final_answer(HOSTILE[name])
    assert time.process_time() - begun < 5  # the slowest takes a second on one core; quadratic ones, minutes


def test_boxes_of_stored_outputs(shared):
    cases = (shared / "math_equiv_cases/extraction_cases_skythought.jsonl").read_text().splitlines()
    cases = [case for case in map(json.loads, cases) if case["test"] == "test_extract_answer"]
    # Others take the last number of a text without box or mark; we do not.
    found = {case["expected"]: final_answer(case["input_str"]) for case in cases}
    assert {gold: said for gold, said in found.items() if said is None} == {"10": None, "": None}
    said = {gold: answer for gold, answer in found.items() if answer is not None}
    assert len(said) == 3 and {verify(*pair).verdict for pair in said.items()} == {"correct"}
    with gzip.open(shared / "long_cot/unireason_sft_math500.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    found = [final_answer(row["response"], opened=True) for row in rows]
    # 154 never close their thinking, and 8 give no box after it.
    assert sum(answer is not None for answer in found) == 338
    assert all(answer is None for answer, row in zip(found, rows, strict=True) if not row["has_close_think"])
