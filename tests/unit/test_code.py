"""Programs in responses: extraction, comparison, tests."""

import time

import pytest

from dipscope.errors import DipscopeError
from dipscope.scoring import code
from dipscope.scoring.code import Result, Test
from dipscope.scoring.sandbox.run import Limits

LIMITS = Limits(cpu=2.0, wall=10.0)
PROMPT = (
    "import math\n\n\ndef helper(x):\n    return x + 1\n\n\n"
    'def area(r: float) -> float:\n    """Of a circle."""\n'
)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("```python\na\n```\nor rather\n```python\nb\n```\nso.", "b\n"),
        ("```py\na\n```\nprints\n```\n3\n```", "a\n"),
        ("```Python3\na\n```", "a\n"),
        ("~\n```\na\n```\nthen run\n```bash\npython a.py\n```", "a\n"),
        ("  ```python\n  a\n  ```", "  a\n"),
        ("```python title='x.py'\na\n```", "a\n"),
        ("first ```python\na\n``` inline, then\n```python\nb", "b"),
        ("```python\na\n```\nand\n```python\ncut sho", "a\n"),
        ("```python\ns = '```'\n```", "s = '```'\n"),
        ("```python\n\n```", None),
        ("```json\n{}\n```", None),
        ("no program, only `code`", None),
        ("", None),
    ],
)
def test_the_last_python_block_is_the_program(text, program):
    assert code.fenced(text) == program


def test_endless_fences_cost_little():
    begun = time.process_time()
    assert code.fenced("```python\n" * 100_000) is None
    assert code.fenced("```python\nx\n" * 100_000) == "x\n"
    assert code.papers("```python\nx\n" * 100_000).startswith("x")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "answer",
    [
        "```python\ndef area(r):\n    return math.pi * r * r\n```",
        "```python\nimport math\n\ndef area(r: float) -> float:\n    return math.pi * r ** 2\n```",
        "```python\n    return math.pi * r * r\n```",
        "```python\nreturn math.pi * r * r\n```",
        "    return math.pi * r * r\n",
        "def area(r):\n    return math.pi * r * r",
        "```python\ndef area(r):\n    return math.pi * helper(r - 1) * r\n```",
    ],
    ids=["function", "with import", "body", "body without indent", "bare body", "bare function", "helper"],
)
def test_functions_are_completed(answer):
    program = code.completed(answer, PROMPT, "area")
    tests = "assert abs(area(1) - 3.14159) < 1e-3\nassert area(0) == 0"
    assert code.check_assertions(program, tests, ["area"], LIMITS) == Result("pass", 1)


@pytest.mark.parametrize("answer", ["", "The area is pi times the radius squared.", "```text\nno\n```"])
def test_prose_completes_nothing(answer):
    assert code.completed(answer, PROMPT, "area") is None


def test_the_papers_extraction():
    assert code.papers("<think>```python\na\n```</think> b") == "a\n"
    assert code.papers("no block at all.") == "."
    assert code.papers("") == ""
    assert code.papers_function("def f(x): return x") == "f"
    assert code.papers_function("class Solution:\n    def g(self, x): pass") == "g"
    assert code.papers_function("import a") == "a"
    assert code.papers_function("") is None
    assert code.papers_arguments('[1, 2]\n"text"\n3\n4.5\ntrue\n') == [[1, 2], "text", 3, 4.5, "true"]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2\n3\n", " 1 2  \n3\n\n", True),
        ("1 2", "1  2", True),
        ("a b", "a  b", False),
        ("1\n2", "1 2", False),
        ("1", "1.0", True),
        ("0.3333333333", "0.33333333333", True),
        ("0.3333", "0.3334", False),
        ("10000000000000000", "10000000000000001", False),
        ("1e3", "1000", True),
        ("nan", "NaN", False),
        ("0.5", "1e9999999", False),
        ("1", "1e999999999999999999999", False),
        ("YES", "Yes", False),
        ("", "", True),
        ("", "x", False),
    ],
)
def test_outputs_are_compared_by_lines_and_numbers(expected, printed, same):
    assert code.same_output(expected, printed) is same


@pytest.mark.parametrize(
    ("expected", "value", "same"),
    [
        ([1, [2]], (1, (2,)), True),
        ([1], [1, 2], False),
        (0.3, 0.1 + 0.2, True),
        (2.0, 2, True),
        (1, True, False),
        (True, 1, False),
        ("1", 1, False),
        (None, None, True),
        ({"a": 1.0}, {"a": 1.0 + 1e-12}, True),
        ({"a": 1}, {"b": 1}, False),
        ([], None, False),
    ],
)
def test_values_are_compared_by_kind(expected, value, same):
    assert code.same_value(expected, value) is same


SUM = "print(sum(map(int, input().split())))"
SUMS = [Test("1 2\n", "3\n"), Test("4 5\n", "9\n")]


def test_programs_that_read_standard_input():
    assert code.check_outputs(SUM, SUMS, LIMITS) == Result("pass", 2)
    assert code.check_outputs("print(3)", SUMS, LIMITS) == Result("fail", 1, "another output than expected")
    assert code.check_outputs("input(); input()", SUMS, LIMITS).told.startswith("EOFError")
    assert code.check_outputs("while True: pass", SUMS, Limits(cpu=0.3, wall=9.0)).status == "timeout"
    assert code.check_outputs("x = bytearray(9 << 30)", SUMS, LIMITS).status == "memory"


def test_each_test_has_its_own_process_and_time():
    counting = "import os\nn = len(os.listdir('/program')) if os.path.isdir('/program') else 0\nprint(n)"
    assert code.check_outputs(counting, [Test("", "0")] * 3, LIMITS).status == "pass"
    slow = "import time\nt = time.process_time()\nwhile time.process_time() < t + 0.15: pass\nprint(1)"
    assert code.check_outputs(slow, [Test("", "1")] * 3, Limits(cpu=0.4, wall=20.0)).status == "pass"


@pytest.mark.parametrize(
    "program",
    [
        "class Solution:\n    def add(self, xs: List[int], k: int) -> List[int]:\n"
        "        return [x + k for x in xs]",
        "def add(xs, k):\n    return tuple(x + k for x in xs)",
        "def helper(x, k): return x + k\ndef add(xs, k):\n    return list(map(partial(helper, k=k), xs))",
        "class Node: pass\nclass Solution(object):\n    def other(self): pass\n    def add(self, xs, k):\n"
        "        return [pow(x + k, 1, 10**9) for x in xs]\nprint(Solution().add([1], 2))",
    ],
)
def test_functions_and_methods(program):
    tests = [Test("[1, 2]\n3", "[4, 5]"), Test("[]\n0", "[]")]
    assert code.check_outputs(program, tests, LIMITS, "add") == Result("pass", 2)
    assert code.check_outputs(program, [Test("[1]\n3", "[5]")], LIMITS, "add").status == "fail"
    assert code.check_outputs(program, tests, LIMITS, "subtract").told.startswith("NameError")


def test_the_papers_rules_find_no_methods_import_nothing_and_share_the_time():
    def paper(program, tests, total=9.0):
        function = code.papers_function(program)
        return code.check_outputs_as_the_paper(program, tests, LIMITS, function, total).status

    tests = [Test("[1, 2]", "3")]
    assert paper("def f(xs): return sum(xs)", tests) == "pass"
    assert paper("def g(x): return x\ndef f(xs): return sum(xs)", tests) == "fail"
    assert paper("class Solution:\n    def f(self, xs): return sum(xs)", tests) == "fail"
    assert paper("def f(xs: List[int]): return sum(xs)", tests) == "fail"
    assert paper("def f(xs): return tuple(xs)", [Test("[1]", "[1]")]) == "fail"
    slow = "import time\nt = time.process_time()\nwhile time.process_time() < t + 0.15: pass\nprint(1)"
    whole = [Test("", "1")] * 4
    assert code.check_outputs_as_the_paper(slow, whole, LIMITS, None, 0.4).status == "timeout"
    assert code.check_outputs_as_the_paper(slow, whole, LIMITS, None, 9.0).status == "pass"
    assert (
        code.check_outputs_as_the_paper("print('1 ')", [Test("", "1.0")], LIMITS, None, 9.0).status == "fail"
    )


def test_a_failing_sandbox_is_nobodys_answer():
    with pytest.raises(DipscopeError, match="sandbox failed") as caught:
        code.judgement(Result("unavailable", 0, "gone"), "x")
    assert caught.value.fault
    assert code.judgement(Result("memory", 0), "x").verdict == "wrong"
    assert code.judgement(Result("pass", 1), "x").extracted == "x"
