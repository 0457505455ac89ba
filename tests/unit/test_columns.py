"""Columns of foreign tables: what is inferred, what is refused, and how values become canonical."""

import json
from typing import Any

import pytest

from dipscope.data.reading.columns import Columns, infer
from dipscope.data.reading.turns import BadRow, finish_text, gold_text, turns
from dipscope.errors import DipscopeError

SYSTEM = {"role": "system", "content": "s"}


def one(row: dict[str, Any], **given: str) -> tuple[Columns, Any]:
    columns = infer(list(row), [row], given)
    return columns, columns.read(row)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_the_papers_layout() -> None:
    columns, row = one(
        {
            "message": [user("1+1?")],
            "response": "2",
            "advantage": 1.0,
            "answer": "2",
            "prompt": "<|im_start|>",
        }
    )
    assert columns.fields == {"prompt": "message", "response": "response", "gold": "answer"}
    assert columns.describe() == (
        "prompt ← message (last user turn), response ← response, gold ← answer; not read: advantage, prompt"
    )
    assert (row.prompt, list(row.responses), row.gold, row.context) == ("1+1?", ["2"], "2", "")


def test_openr1_is_a_pool_with_finish_reasons() -> None:
    row = {
        "problem": "1+1?", "solution": "It is two.", "answer": "2", "problem_type": "Algebra",
        "source": "olympiads", "uuid": "u", "is_reasoning_complete": [True, False],
        "generations": ["<think>a</think>2", "<think>b"], "correctness_math_verify": [True, False],
        "correctness_llama": None, "finish_reasons": ["stop", "length"],
        "correctness_count": 1, "messages": [user("1+1?"), assistant("<think>a</think>2")],
    }  # fmt: skip
    columns, read = one(row)
    assert columns.fields == {
        "prompt": "problem", "response": "generations", "gold": "answer", "finish": "finish_reasons",
    }  # fmt: skip
    assert list(read.responses) == row["generations"]
    assert list(read.finishes) == ["stop", "length"]
    assert list(columns.read(row | {"finish_reasons": None}).finishes) == ["", ""]
    assert {"solution", "messages"} <= set(columns.unused)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [user("q"), assistant("r")]}, ("q", "r", "", "")),
        (
            {"messages": [SYSTEM, user("a"), assistant("b"), user("q"), assistant("r")]},
            ("q", "r", "", [SYSTEM, user("a"), assistant("b")]),
        ),
        ({"messages": json.dumps([user("q"), assistant("r")])}, ("q", "r", "", "")),
        ({"messages": [user("q")], "response": "r", "answer": "3"}, ("q", "r", "3", "")),
        ({"prompt": "q", "completion": "r"}, ("q", "r", "", "")),
        ({"prompt": [user("q")], "completion": [assistant("r")]}, ("q", "r", "", "")),
        (
            {
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}],
                "system": "think",
            },
            ("q", "r", "", [{"role": "system", "content": "think"}]),
        ),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}], "system": ""},
         ("q", "r", "", "")),
        ({"problem": "q", "solution": "r", "answer": "3"}, ("q", "r", "3", "")),
        ({"question": "q", "answer": "r"}, ("q", "r", "", "")),
        ({"query": "q", "response": "r", "gold": "3", "answer": "no"}, ("q", "r", "3", "")),
        ({"instruction": "do", "input": "this", "output": "r"}, ("do\nthis", "r", "", "")),
        ({"instruction": "do", "input": "", "output": "r"}, ("do", "r", "", "")),
        ({"instruction": "do", "input": None, "output": "r"}, ("do", "r", "", "")),
        ({"input": "q", "output": "r"}, ("q", "r", "", "")),
        ({"problem": "q", "generation": "r", "expected_answer": 7}, ("q", "r", "7", "")),
        (
            {"prompt": [user("q")], "response": "r", "reward_model": {"ground_truth": "5", "style": "rule"}},
            ("q", "r", "5", ""),
        ),
        (
            {"messages": [user("q"), {"role": "assistant", "content": "r", "reasoning_content": "hm"}]},
            ("q", "<think>\nhm\n</think>\n\nr", "", ""),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, assistant("r")]},
            ("q", "r", "", ""),
        ),
    ],
)  # fmt: skip
def test_common_schemas(row: dict[str, Any], expected: tuple[str, str, str, Any]) -> None:
    _, read = one(row)
    context = json.loads(read.context) if read.context else ""
    assert (read.prompt, read.responses[0], read.gold, context) == expected
    assert len(read.responses) == 1


@pytest.mark.parametrize(
    ("row", "given", "says"),
    [
        ({"question": "q", "response": "r", "solution": "s"}, {},
         'response and solution could each be the response. Say which: columns = { response = "response" }'),
        ({"question": "q", "problem": "p", "response": "r"}, {},
         "problem and question could each be the prompt"),
        ({"problem": "p", "solution": "s", "messages": [user("p"), assistant("s")]}, {},
         "solution and messages could each be the response"),
        ({"problem": "p", "solution": "s", "answer": "1", "ground_truth": "1"}, {},
         "answer and ground_truth could each be the gold"),
        ({"question": "q", "score": 1.0}, {}, "no column looks like the response; there are question, score"),
        ({"text": "q", "response": "r"}, {}, "no column looks like the prompt"),
        ({"question": "q", "response": "r"}, {"prompt": "questions"}, "Did you mean 'question'?"),
        ({"question": "q", "response": "r"}, {"reply": "response"}, "columns has no field 'reply'"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_one_line_with_the_fix(
    row: dict[str, Any], given: dict[str, str], says: str
) -> None:
    with pytest.raises(DipscopeError) as caught:
        infer(list(row), [row], given, where="table.jsonl")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("table.jsonl: ")
    assert caught.value.exit_code == 2


def test_an_explicit_mapping_overrides() -> None:
    row = {"question": "q", "prompt": "p", "response": "r", "solution": "s", "answer": "1", "gt": "2"}
    _, read = one(row, prompt="question", response="solution", gold="gt")
    assert (read.prompt, read.responses[0], read.gold) == ("q", "s", "2")
    _, read = one(row, prompt="question", response="solution", gold="")
    assert read.gold == ""
    _, read = one({"a": "x", "b": "y", "r": {"t": "z"}}, prompt="a+b", response="r.t")
    assert (read.prompt, read.responses[0]) == ("x\ny", "z")
    _, read = one({"a": "x", "b": "y", "ok": True}, prompt="a", response="b", verdict="ok")
    assert read.verdict == "correct"


def test_questions_alone_need_no_response() -> None:
    row = {"problem": "q", "answer": "3"}
    columns = infer(list(row), [row], need_response=False)
    assert columns.fields == {"prompt": "problem", "gold": "answer"}
    assert list(columns.read(row).responses) == [""]
    chat = {"messages": [user("q"), assistant("r")]}
    assert infer(list(chat), [chat], need_response=False).read(chat).prompt == "q"


def test_columns_that_hold_nothing_at_first_do_not_compete() -> None:
    rows = [{"problem": "q", "solution": None, "generation": "r"}]
    assert infer(list(rows[0]), rows).fields["response"] == "generation"


@pytest.mark.parametrize(
    "bad",
    [
        {"message": [user("q")], "response": None},
        {"message": [user("q")], "response": 3},
        {"message": [user("q")], "response": ["r"]},
        {"message": None, "response": "r"},
        {"message": "q", "response": "r"},
        {"message": [assistant("q")], "response": "r"},
        {"message": [{"role": "narrator", "content": "q"}], "response": "r"},
        {"message": [{"role": "user", "content": None}], "response": "r"},
        {"response": "r"},
    ],
)
def test_a_bad_row_says_why(bad: dict[str, Any]) -> None:
    good = {"message": [user("q")], "response": "r"}
    with pytest.raises(BadRow):
        infer(list(good), [good]).read(bad)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), ("", ""), ("\\frac{1}{2}", "\\frac{1}{2}"), ("{1, 2}", "{1, 2}"),
        (3, "3"), (2.0, "2"), (2.5, "2.5"),
        ({"numbers": [3, 5, 7], "target": 24}, '{"numbers": [3, 5, 7], "target": 24}'),
        ({"target": 24.0, "numbers": [3.0, 5, 7], "extra": None}, '{"numbers": [3, 5, 7], "target": 24}'),
        ('{"target":24,"numbers":[3,5,7]}', '{"numbers": [3, 5, 7], "target": 24}'),
        ({"b": 1, "a": "x"}, '{"a": "x", "b": 1}'), (["7"], "7"), (["7", "8"], "7, 8"),
    ],
)  # fmt: skip
def test_gold_answers_become_text(value: Any, text: str) -> None:
    assert gold_text(value) == text


def test_finish_reasons_and_roles() -> None:
    words = ["stop", "EOS", "length", "max_tokens", None, "content_filter"]
    assert [finish_text(w) for w in words] == ["stop", "stop", "length", "length", "", "content_filter"]
    chat = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"role": "tool", "content": "c"}]
    assert [t["role"] for t in turns(chat, "c")] == ["user", "assistant", "tool"]
