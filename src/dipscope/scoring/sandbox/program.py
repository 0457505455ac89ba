"""What runs in a program's own process: the program, and calls of what it defines.

This process is the program's: nothing in it is trusted, and no expected answer ever comes here.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import sys
import threading
import types
from collections.abc import Iterable
from typing import Any

from dipscope.scoring.sandbox import values

OUT_OF_MEMORY = 97  # exit code; a hint for the reader of a record, no evidence
RECURSION = 50_000  # what judges of programming contests allow; Python's own limit would be 1,000
SOURCE = "solution.py"


def run_script(program: str) -> None:
    """Run a program that reads standard input and prints; does not return."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    code = 1
    try:
        _streams()
        sys.setrecursionlimit(RECURSION)
        atexit._clear()
        try:
            exec(compile(program, SOURCE, "exec", dont_inherit=True), module.__dict__)
            code = 0
        finally:  # as the interpreter ends
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException as error:
        _tell(error)
    finally:
        try:
            sys.stdout.flush()
        except BaseException:
            code = code or 1
        os._exit(code & 0xFF)


def serve_calls(
    prelude: str, program: str, requests: Iterable[str], answers: int, *, bare: bool = False
) -> None:
    """Load a program, then answer requests about what it defines until they end; does not return.

    Requests are lines `{"do": call|get|set, "of": name or number, ...}`; the first answer says how loading
    went. Objects that are no plain data stay here and are spoken of by number. A name may
    be that of a method of the program's class `Solution`, unless `bare`.
    """
    objects: list[Any] = []
    names: dict[str, Any] = {"__name__": "solution"}

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    def target(of: str | int) -> Any:
        if isinstance(of, int):
            return objects[of]
        solution = names.get("Solution")
        if not bare and isinstance(solution, type) and hasattr(solution, of):
            return getattr(solution(), of)
        if of not in names:
            raise NameError(f"name '{of}' is not defined")
        return names[of]

    def load(_: dict[str, Any]) -> None:
        for source in (prelude, program):
            exec(compile(source, SOURCE, "exec", dont_inherit=True), names)

    def handle(request: dict[str, Any]) -> Any:
        if request["do"] == "get":
            return getattr(target(request["of"]), request["name"])
        if request["do"] == "set":
            setattr(
                target(request["of"]), request["name"], values.loads(request["value"], objects.__getitem__)
            )
            return None
        given, named = values.loads(request["arguments"], objects.__getitem__)
        return target(request["of"])(*given, **named)

    _streams()
    sys.setrecursionlimit(RECURSION)
    write = os.fdopen(answers, "w", encoding="utf-8")
    write.write(_answer(load, {}, keep) + "\n")
    write.flush()
    for line in requests:
        write.write(_answer(handle, json.loads(line), keep) + "\n")
        write.flush()
    os._exit(0)


def _answer(do: Any, request: dict[str, Any], keep: Any) -> str:
    try:
        return json.dumps({"value": values.dumps(do(request), keep)})
    except MemoryError:
        return json.dumps({"error": "MemoryError", "told": ""})
    except BaseException as error:
        try:
            told = str(error)[:200]
        except BaseException:
            told = ""
        known = next((k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins"), "Exception")
        return json.dumps({"error": known, "told": told})


def _streams() -> None:
    # Those of the interpreter were opened by another process and may hold its text.
    raw_input = io.BufferedReader(io.FileIO(0, "r", closefd=False))
    sys.stdin = io.TextIOWrapper(raw_input, "utf-8", errors="replace")
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, "utf-8", errors="replace", line_buffering=number == 2))


def _tell(error: BaseException) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{type(error).__name__}: {error}"[:500])
        sys.stderr.flush()
