"""Programs in responses: how they are found, run on tests and compared.

Two ways of testing. *Outputs*: the program gets an input (standard input, or arguments of a call), and what
comes out is compared here, outside its process. *Assertions*: code of the benchmark, run beside the program
in a process of its own. Every test of outputs is run in a fresh process with limits of its own.
"""

from __future__ import annotations

import ast
import json
import math
import queue
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from dipscope.errors import DipscopeError
from dipscope.scoring.base import Judgement
from dipscope.scoring.sandbox import values
from dipscope.scoring.sandbox.run import Limits, Outcome, Sandbox

Status = Literal["pass", "fail", "timeout", "memory", "unavailable"]
CLOSE = 1e-9  # how near, relative or absolute, a number with a point comes to what is expected
# What solutions in the style of LeetCode take for granted.
PRELUDE = """
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from copy import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from random import *
from re import *
from string import *
from typing import *
from math import pow as _float_power
pow = __builtins__["pow"] if isinstance(__builtins__, dict) else __builtins__.pow
"""
_OPENING = re.compile(r"[ \t]*```[ \t]*([\w+.#-]*)[^`]*\Z")
_PYTHON = ("python", "py", "python3", "")


@dataclass(frozen=True)
class Test:
    """One input with the output that is expected.

    Attributes:
        given: text for standard input, or for a call its arguments, each a line of JSON.
        expected: text, or for a call its value as JSON.
    """

    __test__ = False  # no test of ours

    given: str
    expected: str


@dataclass(frozen=True)
class Result:
    """What came of the tests.

    Attributes:
        status: `unavailable` says nothing about the program: the sandbox failed.
        passed: tests that passed before the first that did not.
        told: why, in a few words that come from the program itself.
    """

    status: Status
    passed: int
    told: str = ""


# Extraction


def fenced(text: str) -> str | None:
    """The last fenced block marked as Python; else the last without a mark; else one never closed."""
    closed: dict[bool, str] = {}  # the last block by whether it is marked
    mark, lines = None, list[str]()
    for line in text.split("\n"):
        opening = _OPENING.match(line)
        if mark is not None and line.strip() == "```":
            if mark in _PYTHON and any(map(str.strip, lines)):
                closed[mark != ""] = "".join(f"{one}\n" for one in lines)
            mark = None
        elif opening and (mark is None or opening[1]):  # a marked fence begins anew, closed or not
            mark, lines = opening[1].lower(), []
        elif mark is not None:
            lines.append(line)
    if closed:
        return closed.get(True, closed.get(False))
    left = "\n".join(lines)
    return left if mark in _PYTHON and left.strip() else None


def completed(text: str, prompt: str, entry: str) -> str | None:
    """The program in an answer to "complete this function".

    What is looked at is the fenced block, or the whole text where there is none: it defines the function, or
    it is the function's body and goes below the prompt. Names that the prompt defines or imports are there in
    both cases. A text that is neither holds no program.

    Args:
        text: the answer.
        prompt: code up to the function's docstring.
        entry: the function's name.
    """
    block = fenced(text)
    code = text if block is None else block
    if _defines(code, entry):
        return f"{prompt}    pass\n\n{code}"
    if _parses(prompt + code) and (block is not None or not _parses(code)):
        return prompt + code
    if block is None:
        return None
    return prompt + "".join(f"    {line}" for line in block.splitlines(keepends=True))


def papers(text: str) -> str:
    """The paper's way: the last block marked `python` anywhere; else the last character (reference 4.2)."""
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(found[-1]) if found else text[-1:]


def papers_function(program: str) -> str | None:
    """The paper's way to the function that is called: the last word before the first parenthesis."""
    words = program.split("(")[0].split()
    return words[-1] if words else None


def papers_arguments(text: str) -> list[Any]:
    """The paper's reading of the arguments of a call: a line each, what is no list and no number is text."""
    return [_papers_argument(line) for line in map(str.strip, text.split("\n")) if line]


def _papers_argument(line: str) -> Any:
    if line.startswith('"') and line.endswith('"'):
        return line.strip('"')
    readers: tuple[Callable[[str], Any], ...] = (json.loads,) if line[0] + line[-1] == "[]" else (int, float)
    for read in readers:
        with suppress(ValueError):
            return read(line)
    return line


def _parses(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and not any(isinstance(n, ast.Return) for n in tree.body)


def parsed(code: str) -> ast.Module:
    """The syntax tree of code, without warnings about its style; raises what `ast.parse` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _tree(code: str) -> ast.Module | None:
    try:
        return parsed(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(code: str, name: str) -> bool:
    tree = _tree(code)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return tree is not None and any(isinstance(n, kinds) and n.name == name for n in tree.body)


# Comparison


def same_output(expected: str, printed: str) -> bool:
    """Whether a printed output is the expected one.

    White space around the whole and around each line does not count. A line may differ where both are
    numbers, token by token: integers must be equal, numbers with a point or exponent equal up to `CLOSE`.
    """
    wanted, got = ([line.strip() for line in text.strip().split("\n")] for text in (expected, printed))
    return len(wanted) == len(got) and all(map(_same_line, wanted, got))


def _same_line(wanted: str, got: str) -> bool:
    if wanted == got:
        return True
    tokens = wanted.split(), got.split()
    return len(tokens[0]) == len(tokens[1]) and all(map(_same_number, *tokens))


def _same_number(wanted: str, got: str) -> bool:
    try:
        a, b = Decimal(wanted), Decimal(got)
        if not (a.is_finite() and b.is_finite()):
            return False
        whole = not any(c in wanted for c in ".eE")
        return a == b if whole else abs(a - b) <= Decimal(CLOSE) * max(Decimal(1), abs(a), abs(b))
    except ArithmeticError:  # no number, or one too large to compute with
        return False


def same_value(expected: Any, value: Any) -> bool:
    """Whether a value is the expected one: a tuple is as good as a list, floats count up to `CLOSE`."""
    if isinstance(expected, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(expected) == len(value) and all(map(same_value, expected, value))
    if isinstance(expected, dict) and isinstance(value, dict):
        return expected.keys() == value.keys() and all(same_value(v, value[k]) for k, v in expected.items())
    if isinstance(expected, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return math.isclose(expected, value, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(expected == value) and isinstance(expected, bool) == isinstance(value, bool)


# Running


class _Pool:
    """Sandboxes that stay warm, as many as are used at once."""

    def __init__(self) -> None:
        self._idle: queue.LifoQueue[Sandbox] = queue.LifoQueue()

    @contextmanager
    def borrow(self) -> Iterator[Sandbox]:
        try:
            sandbox = self._idle.get_nowait()
        except queue.Empty:
            sandbox = Sandbox()
        try:
            yield sandbox
        finally:
            self._idle.put(sandbox)


_POOL = _Pool()
_STATUS: dict[str, Status] = {
    "ended": "pass", "failed": "fail", "timeout": "timeout", "memory": "memory", "unavailable": "unavailable",
}  # fmt: skip


def check_outputs(program: str, tests: Sequence[Test], limits: Limits, function: str | None = None) -> Result:
    """Run a program on tests in their order, up to the first that does not pass.

    Args:
        program: its code.
        tests: inputs and expected outputs.
        limits: for each of the tests.
        function: what is called, be it a method of `class Solution`; None: the program reads standard input.
    """
    with _POOL.borrow() as sandbox:
        for number, test in enumerate(tests):
            if function is None:
                outcome = sandbox.script(program, test.given, limits)
                right = same_output(test.expected, outcome.output)
            else:
                given = [json.loads(line) for line in test.given.split("\n")]
                outcome = sandbox.call(program, function, given, limits, prelude=PRELUDE)
                right = same_value(json.loads(test.expected), _value(outcome))
            if outcome.status != "ended" or not right:
                return _stopped(outcome, number)
    return Result("pass", len(tests))


def check_outputs_as_the_paper(
    program: str, tests: Sequence[Test], limits: Limits, function: str | None, total: float
) -> Result:
    """The same by the paper's rules (reference 4.2).

    Outputs are compared as strings, stripped, values by equality, in which a tuple is no list; nothing is
    imported for the program; methods are not found.

    Args:
        program: its code.
        tests: inputs and expected outputs.
        limits: for memory and output; the time of a test is what is left of `total`.
        function: what is called; None: the program reads standard input.
        total: CPU seconds for all tests together.
    """
    with _POOL.borrow() as sandbox:
        for number, test in enumerate(tests):
            left = replace(limits, cpu=max(total, 0.1), wall=limits.wall + total)
            if function is None:
                outcome = sandbox.script(program, test.given, left)
                expected = test.expected.strip()
                right = outcome.output.strip() == expected.removesuffix("-").rstrip()
            else:
                given = papers_arguments(test.given)
                outcome = sandbox.call(program, function, given, left, bare=True)
                right = bool(_value(outcome) == _papers_value(test.expected))
            total -= outcome.cpu
            if outcome.status != "ended" or not right:
                return _stopped(outcome, number)
    return Result("pass", len(tests))


def _stopped(outcome: Outcome, number: int) -> Result:
    if outcome.status == "ended":
        return Result("fail", number, "another output than expected")
    return Result(_STATUS[outcome.status], number, outcome.told)


def _value(outcome: Outcome) -> Any:
    """What a call returned; an object that equals nothing else when that is no plain data."""
    with suppress(ValueError):
        return values.loads(outcome.output)
    return object()


def _papers_value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text.strip())
    return text.strip()


def check_assertions(
    program: str, tests: str, names: Sequence[str], limits: Limits, *, prelude: str = "", setup: str = ""
) -> Result:
    """Run a program against tests written as code.

    Args:
        program: its code.
        tests: code that raises when a test does not pass.
        names: those of the program's names that the tests use.
        limits: for the program's process, over all its tests.
        prelude: code that is run before the program, in the same module.
        setup: code that is run before the tests, in their process.
    """
    with _POOL.borrow() as sandbox:
        outcome = sandbox.tests(program, tests, list(names), limits, prelude=prelude, setup=setup)
    status = _STATUS[outcome.status]
    return Result(status, int(status == "pass"), outcome.told)


def judgement(result: Result, program: str) -> Judgement:
    """The verdict on a program that was found.

    Raises:
        DipscopeError: the sandbox failed, which is nobody's answer (fault).
    """
    if result.status == "unavailable":
        fix = "Score the stored responses again."
        raise DipscopeError(f"the sandbox failed: {result.told}", "scoring/sandbox", fix, fault=True)
    return Judgement.of(result.status == "pass", program)
