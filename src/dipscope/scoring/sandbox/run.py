"""Running untrusted Python programs: `Sandbox` is the parent's end of the warm interpreter.

What holds them is in walls.py and filter.py; docs/benchmarks.md says what a program can and cannot do.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from dipscope.errors import DipscopeError
from dipscope.scoring.process import Process
from dipscope.scoring.sandbox import values

SERVER = "dipscope.scoring.sandbox.server"
LEVELS = ("namespaces", "landlock", "limits")
DEFAULT_LEVELS = LEVELS[:2]  # those that keep a program from reading and writing files
UNSAFE = "DIPSCOPE_UNSAFE_CODE"
GRACE = 20.0  # wall seconds for an outcome beyond the wall time of its job
RECYCLE = 2_000  # jobs after which the interpreter is replaced

Ended = Literal["ended", "failed", "timeout", "memory", "unavailable"]


@dataclass(frozen=True)
class Limits:
    """What one process of a program may use; the same for the process of its tests.

    Attributes:
        cpu: seconds of CPU time.
        wall: seconds by the clock; ends what sleeps. A busy machine must not reach it.
        memory: bytes of address space, those of the interpreter (some 50 MB) included.
        file_bytes: longest file that it may write.
        output: most bytes that it may print or return.
    """

    cpu: float = 6.0
    wall: float = 60.0
    memory: int = 2 << 30
    file_bytes: int = 16 << 20
    output: int = 16 << 20


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: `ended`: a script came to its end, a call returned, all tests passed. `failed`: it raised, was
            killed, printed too much, or a test did not pass. `timeout`, `memory`: that limit was reached.
            `unavailable`: the sandbox failed, which says nothing about the program.
        output: what a script printed; the value of a call, to be read with `values.loads`.
        told: why, in a few words that come from the program itself.
        cpu: seconds of CPU time that it took.
    """

    status: Ended
    output: str = ""
    told: str = ""
    cpu: float = 0.0


class Sandbox:
    """A warm interpreter behind walls that runs one program at a time; a context.

    Args:
        level: the walls that are wanted; the strongest that this machine offers by default. `limits` has to
            be asked for, here or by setting the environment variable `DIPSCOPE_UNSAFE_CODE` to 1.

    Raises:
        DipscopeError: this machine offers no such walls (fault).
    """

    def __init__(self, level: str | None = None) -> None:
        self.level = level or best_level()
        if self.level not in LEVELS:
            raise DipscopeError(
                f"there is no level '{level}'", "scoring/sandbox", f"Levels: {', '.join(LEVELS)}."
            )
        self._process: Process | None = Process(SERVER, self.level)
        self._jobs = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the interpreter and all that it runs."""
        with self._lock:
            self._stop()

    def script(self, program: str, text: str, limits: Limits) -> Outcome:
        """Run a program with `text` on its standard input."""
        return self._do({"kind": "script", "program": program, "input": text}, limits)

    def call(
        self,
        program: str,
        name: str,
        arguments: list[Any],
        limits: Limits,
        *,
        prelude: str = "",
        bare: bool = False,
    ) -> Outcome:
        """Load a program and call what it defines as `name`, be it a method of its class `Solution`.

        Args:
            program: its code.
            name: what is called.
            arguments: plain data.
            limits: for loading and call together.
            prelude: code that is run before it in the same module.
            bare: methods of `Solution` do not count.
        """
        given = values.dumps((arguments, {}))
        job = {
            "kind": "call",
            "program": program,
            "prelude": prelude,
            "name": name,
            "arguments": given,
            "bare": bare,
        }
        return self._do(job, limits)

    def tests(
        self,
        program: str,
        tests: str,
        names: list[str],
        limits: Limits,
        *,
        prelude: str = "",
        setup: str = "",
    ) -> Outcome:
        """Load a program and run tests on it, which stay in another process.

        Args:
            program: its code.
            tests: code that raises when a test does not pass.
            names: those of the program's names that the tests use.
            limits: for each of the two processes.
            prelude: code that is run before the program in the same module.
            setup: code that is run before the tests, in their process.
        """
        job = {
            "kind": "tests",
            "program": program,
            "prelude": prelude,
            "tests": tests,
            "names": names,
            "setup": setup,
        }
        return self._do(job, limits)

    def _do(self, job: dict[str, Any], limits: Limits) -> Outcome:
        line = json.dumps(job | asdict(limits)).encode()
        with self._lock:
            if self._process is None or not self._process.alive or self._jobs >= RECYCLE:
                self._stop()
                self._process, self._jobs = Process(SERVER, self.level), 0
            self._jobs += 1
            told = list(self._process.ask(line, 1, limits.wall + GRACE))
        try:
            return Outcome(**json.loads(told[0]))
        except (IndexError, ValueError):
            return Outcome("unavailable", told="the sandbox's interpreter died")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


@cache
def best_level() -> str:
    """The strongest walls that this machine offers and that may be used.

    Raises:
        DipscopeError: there are none (fault).
    """
    unsafe = os.environ.get(UNSAFE) == "1"
    for level in LEVELS if unsafe else DEFAULT_LEVELS:
        if offered(level):
            return level
    raise DipscopeError(
        "untrusted programs cannot be confined here: the kernel offers neither namespaces nor Landlock",
        "scoring/sandbox",
        f"Score code on another machine, or set {UNSAFE}=1 where nothing can be lost.",
        fault=True,
    )


def offered(level: str) -> bool:
    """Whether programs run at a level here, found by running one."""
    try:
        with Sandbox(level) as sandbox:
            return sandbox.script("print(6 * 7)", "", Limits(wall=20.0)).output == "42\n"
    except DipscopeError:
        return False
