"""Programs: `paper/livecodebench`, `public/humaneval` and `public/mbpp`.

There is no likelihood twin: a program has no short gold. Programs are run by `scoring/code.py`, never here.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

from dipscope.benchmarks.items import Defaults, Source, field, item_id, rows
from dipscope.benchmarks.published import Published
from dipscope.errors import DipscopeError
from dipscope.scoring import code
from dipscope.scoring.base import MISSING, Benchmark, Domain, Item, Judgement
from dipscope.scoring.sandbox.run import Limits
from dipscope.scoring.thinking import Response

PER_TEST = Limits(cpu=6.0, wall=60.0)  # the limit of LiveCodeBench's own scorer, in CPU time
PER_PROBLEM = Limits(cpu=10.0, wall=60.0)
_FENCED = "Put the whole program into one block that starts with ```python and ends with ```."


class LiveCodeBench(Published):
    """LiveCodeBench v2, code generation (arXiv 2403.07974): contest problems of May 2023 to May 2024.

    The light version of the set, whose v2 is its first two files: 400 and 111 problems, 2 GB, all of which is
    held in memory. A local file may hold more: problems outside the window are left out.
    """

    name = "paper/livecodebench"
    domain: Domain = "ood_reasoning"
    source = Source(
        "livecodebench/code_generation_lite",
        "0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        "test.jsonl",
        "2bd02b38beb48e8c46b5b9987095d999ff38cd8efc255ea5d58974317c48f63f",
        licence="CC, version not stated",
    )
    second = Source(
        source.hub,
        source.revision,
        "test2.jsonl",
        "095df7c5daf15f882c51a9deb84085cff1e073495a5dbcf95015a564d485f3a3",
        licence=source.licence,
    )
    size = 511
    rule = "code-outputs/1"
    defaults = Defaults(items=511, samples=3, temperature=0.6, top_p=0.95)
    window = ("2023-05-01", "2024-06-01")  # contest dates, the second not included

    @cached_property
    def _items(self) -> list[Item]:
        sources = (self.source,) if self.path else (self.source, self.second)
        read = (row for source in sources for row in rows(source, self.path))
        first, end = self.window
        found = [self.item(r) for r in read if first <= str(field(r, "contest_date", self.source))[:10] < end]
        if not found:
            raise DipscopeError(
                f"no problem has a contest date from {first} up to {end}",
                str(self.path or self.source.where),
                "LiveCodeBench v2 is the files test.jsonl and test2.jsonl of its source.",
            )
        return found

    def item(self, row: dict[str, Any]) -> Item:
        """From the fields of the published rows; the tests stay packed in the gold."""
        statement, starter, public, private, about = (
            str(field(row, name, self.source) or "")
            for name in (
                "question_content", "starter_code", "public_test_cases", "private_test_cases", "metadata",
            )
        )  # fmt: skip
        function = json.loads(about or "{}").get("func_name")
        gold = {"function": function, "public": public, "private": private}
        key = item_id(statement, starter, public, private)
        return Item(key, self.prompt(statement, starter, function), gold)

    def prompt(self, statement: str, starter: str, function: str | None) -> str:
        """The user turn; the paper shows no starter code."""
        if self.protocol == "paper":
            asked = "read standard input and print" if function is None else "be one function that returns"
            return (
                "You are an expert Python programmer. Below is a problem; write a correct Python program "
                f"that passes all of its tests. It must {asked} the result.\n\n{statement}"
            )
        if function is None:
            asked = "Write a Python program that reads the input from standard input and prints the answer."
        else:
            asked = f"Complete this code; it is imported and called.\n\n```python\n{starter.rstrip()}\n```"
        return f"{statement.rstrip()}\n\n{asked}\n\n{_FENCED}"

    def judge(self, item: Item, response: Response) -> Judgement:
        """Right when every test passes: all of them, or under `paper` the private ones."""
        gold = item.gold
        private = packed_tests(gold["private"])
        if self.protocol == "paper":
            program = code.papers(response.text)
            called = code.papers_function(program) if gold["function"] else None
            if gold["function"] and called is None:
                return Judgement.of(False, program)
            total = 7.0 * len(private) + 5.0
            result = code.check_outputs_as_the_paper(program, private, PER_TEST, called, total)
            return code.judgement(result, program)
        found = code.fenced(response.answer) if response.closed else None
        if found is None:
            return MISSING
        tests = [*packed_tests(gold["public"]), *private]
        return code.judgement(code.check_outputs(found, tests, PER_TEST, gold["function"]), found)


class HumanEval(Published):
    """HumanEval (arXiv 2107.03374): complete a function that is given by signature and docstring."""

    name = "public/humaneval"
    domain: Domain = "ood_reasoning"
    source = Source(
        "openai/openai_humaneval",
        "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        "openai_humaneval/test-00000-of-00001.parquet",
        None,
        licence="MIT",
    )
    size = 164
    rule = "code-assertions/1"
    max_tokens = 4096
    defaults = Defaults(items=164)

    def item(self, row: dict[str, Any]) -> Item:
        """From `prompt`, `entry_point` and `test`."""
        prompt, entry, test = (str(field(row, k, self.source)) for k in ("prompt", "entry_point", "test"))
        asked = f"Complete this Python function.\n\n```python\n{prompt.rstrip()}\n```\n\n{_FENCED}"
        return Item(item_id(prompt, test), asked, {"prompt": prompt, "entry": entry, "test": test})

    def judge(self, item: Item, response: Response) -> Judgement:
        """Right when the tests pass; under `paper` the program is found as the paper does elsewhere."""
        gold = item.gold
        if self.protocol == "paper":
            program: str | None = code.papers(response.text)
        else:
            program = (
                code.completed(response.answer, gold["prompt"], gold["entry"]) if response.closed else None
            )
        if program is None:
            return MISSING
        return code.judgement(self.check(gold, program), program)

    @staticmethod
    def check(gold: dict[str, Any], program: str) -> code.Result:
        """The result of a whole program. What the prompt defines besides is known to the tests."""
        tests = f"{gold['test']}\n\ncheck({gold['entry']})\n"
        setup = f"{gold['prompt']}    pass\n"
        return code.check_assertions(program, tests, [gold["entry"]], PER_PROBLEM, setup=setup)


class MBPP(Published):
    """MBPP (arXiv 2108.07732): a sentence and three assertions, which are shown.

    Tasks 11 to 510 are its test set.
    """

    name = "public/mbpp"
    domain: Domain = "ood_reasoning"
    source = Source(
        "google-research-datasets/mbpp",
        "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
        "full/test-00000-of-00001.parquet",
        None,
        licence="CC BY 4.0",
    )
    size = 500
    rule = "code-assertions/1"
    max_tokens = 4096
    defaults = Defaults(items=500)

    @cached_property
    def _items(self) -> list[Item]:
        return [self.item(r) for r in rows(self.source, self.path) if 11 <= int(r.get("task_id", 11)) <= 510]

    def item(self, row: dict[str, Any]) -> Item:
        """From `text`, `code`, `test_list` and `test_setup_code`."""
        text, reference, setup = (
            str(field(row, k, self.source) or "") for k in ("text", "code", "test_setup_code")
        )
        tests = "\n".join(field(row, "test_list", self.source))
        shown = f"{text.strip()}\n\nIt has to pass these tests:\n\n```python\n{tests}\n```\n\n{_FENCED}"
        gold = {
            "tests": f"{setup}\n{tests}",
            "names": sorted(_defined(reference) & _used(f"{setup}\n{tests}")),
        }
        return Item(item_id(text, tests), shown, gold)

    def judge(self, item: Item, response: Response) -> Judgement:
        """Right when the tests pass; under `paper` the program is found as the paper does elsewhere."""
        if self.protocol == "paper":
            program: str | None = code.papers(response.text)
        else:
            program = code.fenced(response.answer) if response.closed else None
        if program is None:
            return MISSING
        return code.judgement(self.check(item.gold, program), program)

    @staticmethod
    def check(gold: dict[str, Any], program: str) -> code.Result:
        """The result of a whole program."""
        return code.check_assertions(program, gold["tests"], gold["names"], PER_PROBLEM)


def packed_tests(packed: str) -> list[code.Test]:
    """The tests of a LiveCodeBench row: JSON, or base64 of a compressed pickle of a string of JSON.

    Raises:
        DipscopeError: they are packed in another way.
    """
    try:
        if not packed.lstrip().startswith("["):
            packed = _OnlyText(io.BytesIO(zlib.decompress(base64.b64decode(packed)))).load()
        return [code.Test(str(t["input"]), str(t["output"])) for t in json.loads(packed)]
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        fix = "Give `path` a file in the layout of livecodebench/code_generation_lite."
        raise DipscopeError(f"the tests cannot be read: {error}", LiveCodeBench.name, fix) from None


class _OnlyText(pickle.Unpickler):
    """Reads plain values; a pickle that names code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _defined(source: str) -> set[str]:
    """Names that code binds at its top level."""
    names: set[str] = set()
    for node in code.parsed(source.replace("\r\n", "\n")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def _used(source: str) -> set[str]:
    return {n.id for n in ast.walk(code.parsed(source)) if isinstance(n, ast.Name)}


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    LiveCodeBench.name: LiveCodeBench,
    HumanEval.name: HumanEval,
    MBPP.name: MBPP,
}
