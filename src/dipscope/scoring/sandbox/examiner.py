"""Tests written as Python code (`assert f(1) == 2`), run apart from the program that they test.

The names under test stand for objects in the program's process: a call sends the arguments there and gets
plain data back. So a program sees neither the tests nor what they expect, cannot end them early, and an
object of its own that claims to equal everything equals nothing here.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import sys
from typing import IO, Any

from dipscope.scoring.sandbox import values

LONGEST_ANSWER = 1 << 25


class _Ended(BaseException):
    """The program's process is gone, or sent what is no answer. No Exception: tests may catch those."""


class _Remote:
    """Stands for an object in the program's process: can be called, and its attributes read and set."""

    def __init__(self, line: _Line, of: str | int) -> None:
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_of", of)

    def __call__(self, *given: Any, **named: Any) -> Any:
        line: _Line = object.__getattribute__(self, "_line")
        arguments = values.dumps((given, named), line.number)
        return line.ask({"do": "call", "of": self._of, "arguments": arguments})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        line: _Line = object.__getattribute__(self, "_line")
        return line.ask({"do": "get", "of": self._of, "name": name})

    def __setattr__(self, name: str, value: Any) -> None:
        line: _Line = object.__getattribute__(self, "_line")
        line.ask({"do": "set", "of": self._of, "name": name, "value": values.dumps(value, line.number)})


class _Line:
    """Questions to the program's process and its answers."""

    def __init__(self, asked: IO[str], answers: IO[str]) -> None:
        self._asked, self._answers = asked, answers

    def number(self, value: Any) -> int:
        of = object.__getattribute__(value, "_of") if isinstance(value, _Remote) else None
        if not isinstance(of, int):
            raise TypeError(f"{type(value).__name__} cannot be handed to the program")
        return of

    def ask(self, request: dict[str, Any]) -> Any:
        try:
            self._asked.write(json.dumps(request) + "\n")
            self._asked.flush()
        except OSError:
            raise _Ended from None
        return self.read()

    def read(self) -> Any:
        """The next answer; an error of the program is raised here under the name of its built-in kind."""
        line = self._answers.readline(LONGEST_ANSWER)
        if not line.endswith("\n"):
            raise _Ended
        try:
            answer = json.loads(line)
            if "error" not in answer:
                return values.loads(answer["value"], lambda number: _Remote(self, number))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _Ended from None
        kind = getattr(builtins, str(answer["error"]), Exception)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise _Ended  # SystemExit and its like end a program
        error = kind.__new__(kind, str(answer.get("told")))
        error.args = (str(answer.get("told")),)
        raise error


def examine(setup: str, tests: str, under_test: list[str], asked: int, answers: int, verdict: int) -> None:
    """Run tests and write the verdict, `pass` or `fail` or `memory` and why; does not return.

    Args:
        setup: code of the benchmark that runs before the tests, with whatever they use.
        tests: the tests; they pass when nothing is raised.
        under_test: the names that stand for objects of the program.
        asked: where requests go.
        answers: where the program's answers come from.
        verdict: where the verdict goes.
    """
    told = "fail\tthe program ended"
    with os.fdopen(asked, "w", encoding="utf-8") as ask, os.fdopen(answers, encoding="utf-8") as answer:
        line = _Line(ask, answer)
        try:
            line.read()  # whether it loads
            names: dict[str, Any] = {"__name__": "tests"}
            exec(compile(setup, "setup.py", "exec", dont_inherit=True), names)
            names |= {name: _Remote(line, name) for name in under_test}
            names |= _modules(tests, names)
            exec(compile(tests, "tests.py", "exec", dont_inherit=True), names)
            told = "pass\t"
        except MemoryError:
            told = "memory\tMemoryError"
        except _Ended:
            pass
        except BaseException as error:
            told = f"fail\t{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        # Before the program's process hears that there are no more questions: it may take this one along.
        os.write(verdict, told.encode())
    os._exit(0)


def _modules(tests: str, names: dict[str, Any]) -> dict[str, Any]:
    """Modules of the standard library that the tests use without importing them."""
    used = {n.id for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.Name)}
    wanted = used & sys.stdlib_module_names - names.keys() - set(dir(builtins))
    return {name: importlib.import_module(name) for name in sorted(wanted)}
