"""LiveCodeBench, HumanEval, MBPP: rows in the published layout, prompts, verdicts; the references pass."""

import base64
import gzip
import json
import pickle
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from mutants import KINDS, mutants

from dipscope.benchmarks.code import BENCHMARKS, MBPP, HumanEval, LiveCodeBench, packed_tests
from dipscope.benchmarks.items import rows
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split


def cases(kind, *pairs):
    return json.dumps([{"input": i, "output": o, "testtype": kind} for i, o in pairs])


def packed(text):
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


def row(number=0, date="2023-08-26T00:00:00", starter="", **fields):
    """A problem in the published layout: the sum of two numbers, by standard input or as a function."""
    kind = "functional" if starter else "stdin"
    public = [("1\n2", "3")] if starter else [("1 2\n", "3\n")]
    private = [("4\n5", "9"), ("0\n0", "0")] if starter else [("4 5\n", "9\n"), ("0 0\n", "0\n")]
    return {
        "question_title": f"Sum {number}",
        "question_content": f"Add the two numbers. This is variant {number}.",
        "platform": "leetcode" if starter else "atcoder",
        "question_id": f"q{number}",
        "contest_id": "c",
        "contest_date": date,
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": cases(kind, *public),
        "private_test_cases": packed(cases(kind, *private)),
        "metadata": json.dumps({"func_name": "addUp"} if starter else {}),
        **fields,
    }


STARTER = "class Solution:\n    def addUp(self, a: int, b: int) -> int:\n        "
METHOD = "class Solution:\n    def addUp(self, a: int, b: int) -> int:\n        return a + b\n"
SCRIPT = "a, b = map(int, input().split())\nprint(a + b)\n"


def lcb(tmp_path, *made, protocol="strict"):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in made))
    return LiveCodeBench(path, protocol)


def said(benchmark, item, text, opened=False):
    return benchmark.judge(item, split(text, opened=opened)).verdict


def block(program):
    return f"So:\n```python\n{program}```\n"


def test_problems_with_standard_input_and_with_functions(tmp_path):
    benchmark = lcb(tmp_path, row(1), row(2, starter=STARTER))
    script, function = sorted(benchmark.items(9, "test"), key=lambda i: i.gold["function"] or "")
    assert "standard input" in script.prompt and "variant 1" in script.prompt
    assert STARTER.rstrip() in function.prompt and function.gold["function"] == "addUp"
    assert not script.options and not function.options
    assert said(benchmark, script, block(SCRIPT)) == "correct"
    assert said(benchmark, script, block("print(3)")) == "wrong"
    assert said(benchmark, script, block("print(input())")) == "wrong"
    assert said(benchmark, function, block(METHOD)) == "correct"
    assert said(benchmark, function, block("def addUp(a, b):\n    return a + b\n")) == "correct"
    assert said(benchmark, function, block(METHOD.replace("+", "-"))) == "wrong"


def test_strict_scores_what_follows_the_thinking(tmp_path):
    benchmark = lcb(tmp_path, row())
    (item,) = benchmark.items(9, "test")
    assert said(benchmark, item, f"<think>{block('print(3)')}</think>{block(SCRIPT)}") == "correct"
    assert said(benchmark, item, f"<think>{block(SCRIPT)}") == "missing"
    assert said(benchmark, item, f"<think>{block(SCRIPT)}</think>I am done.") == "missing"
    assert said(benchmark, item, "No program.") == "missing"


def test_the_papers_protocol_has_its_oddities(tmp_path):
    made = (row(1), row(2, starter=STARTER), row(3, public_test_cases=cases("stdin", ("1 2", "never"))))
    benchmark = lcb(tmp_path, *made, protocol="paper")
    items = {i.prompt[-2]: i for i in benchmark.items(9, "test")}
    assert "class Solution" not in items["2"].prompt and "expert Python programmer" in items["1"].prompt
    assert said(benchmark, items["1"], f"<think>{block(SCRIPT)}") == "correct"  # thinking counts
    assert said(benchmark, items["1"], "No program.") == "wrong"  # the last character is run
    assert said(benchmark, items["2"], block(METHOD)) == "wrong"  # methods are not found
    assert said(benchmark, items["2"], block("def other(a, b): return a + b\n")) == "correct"  # any name
    helper = "def zero():\n    return 0\ndef addUp(a, b):\n    return a + b + zero()\n"
    assert said(benchmark, items["2"], block(helper)) == "wrong"  # the first name is called
    assert said(benchmark, items["3"], block(SCRIPT)) == "correct"  # public tests are not run
    assert said(lcb(tmp_path, *made), items["3"], block(SCRIPT)) == "wrong"


def test_only_problems_of_the_window_count(tmp_path):
    dates = ("2023-04-30", "2023-05-01", "2024-05-31T23:00:00", "2024-06-01", "2025-01-01")
    benchmark = lcb(tmp_path, *(row(i, date) for i, date in enumerate(dates)))
    assert sorted(i.prompt.split("variant ")[1][0] for i in benchmark.items(9, "test")) == ["1", "2"]
    with pytest.raises(DipscopeError, match="contest date"):
        lcb(tmp_path, row(date="2025-01-01")).items(9, "test")


def test_tests_are_read_as_published_and_no_pickle_runs_code():
    text = cases("stdin", ("1", "2"))
    assert packed_tests(text) == packed_tests(packed(text))
    import os

    for bad in ("x", packed(os.system), packed([1]), base64.b64encode(b"x").decode(), '[{"input": 1}]'):
        with pytest.raises(DipscopeError, match="cannot be read"):
            packed_tests(bad)


def test_ids_follow_the_content_and_scorers_the_protocol(tmp_path):
    one, two = (lcb(tmp_path, row(1)).items(9, "test")[0] for _ in range(2))
    assert one.id == two.id and len(one.id) == 16
    assert (
        len({BENCHMARKS[n](None, p).scorer for n in ("paper/livecodebench",) for p in ("strict", "paper")})
        == 2
    )
    with pytest.raises(DipscopeError, match="protocol"):
        HumanEval(protocol="loose")


FUNCTION = {
    "task_id": "X/0",
    "prompt": 'from typing import List\n\n\ndef double(xs: List[int]) -> List[int]:\n    """Twice each."""\n',
    "entry_point": "double",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n    assert candidate([]) == []\n",
}
TASK = {
    "text": "Write a function to double a number.",
    "code": "import math\r\ndef double(x):\r\n    return 2 * x",
    "task_id": 11,
    "test_setup_code": "",
    "test_list": ["assert double(1) == 2", "assert math.sqrt(double(2)) == 2"],
    "challenge_test_list": [],
}


def stored(tmp_path, made):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(made) + "\n")
    return path


def test_functions_to_complete(tmp_path):
    benchmark = HumanEval(stored(tmp_path, FUNCTION))
    (item,) = benchmark.items(9, "test")
    assert FUNCTION["prompt"].rstrip() in item.prompt
    body = FUNCTION["canonical_solution"]
    assert said(benchmark, item, body) == "correct"
    assert said(benchmark, item, block(FUNCTION["prompt"] + body)) == "correct"
    assert (
        said(benchmark, item, block("def double(xs: List[int]):\n    return [x + x for x in xs]\n"))
        == "correct"
    )
    assert said(benchmark, item, block("def double(xs):\n    return xs\n")) == "wrong"
    assert said(benchmark, item, block("import os\nos._exit(0)\n")) == "wrong"
    assert said(benchmark, item, "I cannot.") == "missing"
    assert said(HumanEval(benchmark.path, "paper"), item, "I cannot.") == "wrong"


def test_tasks_with_shown_tests(tmp_path):
    benchmark = MBPP(stored(tmp_path, TASK))
    (item,) = benchmark.items(9, "test")
    assert all(t in item.prompt for t in TASK["test_list"]) and item.gold["names"] == ["double"]
    assert said(benchmark, item, block("def double(x): return x + x\n")) == "correct"
    assert said(benchmark, item, block("def twice(x): return x + x\n")) == "wrong"
    assert said(benchmark, item, "def double(x): return x + x") == "missing"
    assert MBPP(stored(tmp_path, {**TASK, "task_id": 601})).items(9, "test") == []


def test_a_file_in_another_layout_is_named(tmp_path):
    with pytest.raises(DipscopeError, match="entry_point"):
        HumanEval(stored(tmp_path, {"prompt": "x"})).items(1, "test")


# The references of the published sets, and wrong programs made from them


def humaneval(shared):
    benchmark = HumanEval(shared / "humaneval" / "HumanEval.jsonl.gz")
    for r in rows(benchmark.source, benchmark.path):
        yield benchmark.item(r).gold, r["prompt"] + r["canonical_solution"], r["entry_point"], r["task_id"]


def mbpp(shared):
    benchmark = MBPP(shared / "mbpp" / "mbpp.jsonl")
    for r in rows(benchmark.source, benchmark.path):
        gold = benchmark.item(r).gold
        yield gold, r["code"], gold["names"][0], r["task_id"]


SETS = {"humaneval": (humaneval, HumanEval.check, 164), "mbpp": (mbpp, MBPP.check, 974)}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SETS)
def test_every_reference_passes(shared, name):
    problems, check, size = SETS[name]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda p: (p[3], check(p[0], p[1])), problems(shared)))
    assert len(results) == size
    assert [r for r in results if r[1].status != "pass"] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SETS)
def test_mutants_fail_or_the_tests_are_weak(shared, name):
    problems, check, _ = SETS[name]
    made = [
        (kind, gold, mutant)
        for gold, source, entry, _ in problems(shared)
        for kind, mutant in mutants(source, entry)
    ]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda m: (m[0], check(m[1], m[2]).status), made))
    count, alive = Counter(k for k, _ in results), Counter(k for k, s in results if s == "pass")
    print({kind: f"{alive[kind]} of {count[kind]}" for kind in KINDS}, Counter(s for _, s in results))
    assert not Counter(s for _, s in results)["unavailable"]
    assert alive["return None"] <= 0.02 * count["return None"]
    assert alive.total() <= 0.2 * count.total()


def test_references_of_the_shared_sets_pass_in_part(shared):
    with gzip.open(shared / "humaneval" / "HumanEval.jsonl.gz") as file:
        assert len(file.readlines()) == 164
    for problems, check, _ in SETS.values():
        for gold, source, entry, name in list(problems(shared))[::60]:
            assert check(gold, source).status == "pass", name
            assert check(gold, f"{source}\ndef {entry}(*a, **k): return None").status == "fail", name
