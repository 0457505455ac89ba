"""One job: the processes of one program and of its tests, watched until they are gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from dipscope.scoring.sandbox import examiner, kernel, program, walls

ENVIRONMENT = {
    "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
    "TMPDIR": walls.FOLDER,
}  # fmt: skip
TICK = 0.05  # seconds between two looks at the CPU time of a process
TOLD = 500  # bytes kept of what a program writes to standard error


class Job:
    """One job of the server.

    The program's process is started before the job is read, and told its own part of it: so there is no test
    in its memory, wherever it looks.

    Args:
        level: of the walls.
        view: what the processes may read.
        lent: whether they can become another user.
    """

    def __init__(self, level: str, view: walls.View, lent: bool) -> None:
        self._level, self._view, self._lent = level, view, lent
        self._running: list[int] = []
        self._job: dict[str, Any] = {}
        self._nothing = os.open(os.devnull, os.O_RDWR)
        self._input = os.memfd_create("input")
        self._out, out = os.pipe()
        self._errors, errors = os.pipe()
        asked, self._ask = os.pipe()
        self._answers, answers = os.pipe()
        if level == "namespaces":
            kernel.unshare(kernel.NEW_PID)
        files = {0: self._input, 1: out, 2: errors, 3: asked, 4: answers, 5: self._nothing}
        self._program = self._start(files, self._run_program)
        for end in (out, errors, asked, answers):
            os.close(end)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Its outcome: `status`, `output`, what is `told`, and the CPU seconds that it took.

        Args:
            job: `kind` (`script`, `call` or `tests`) with what it needs, and the limits `cpu`, `wall`,
                `memory`, `file_bytes` and `output`.
        """
        self._job = job
        finish = {"script": self._script, "call": self._call, "tests": self._tests}[job["kind"]]
        outcome = finish(time.monotonic() + job["wall"])
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        for pid in reversed(self._running):  # the first of a namespace cannot go before the others are reaped
            os.waitpid(pid, 0)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # this process has no others
        return outcome | {"cpu": used.ru_utime + used.ru_stime}

    # The three kinds

    def _script(self, until: float) -> dict[str, Any]:
        job = self._job
        _write(self._input, job["input"])
        os.lseek(self._input, 0, os.SEEK_SET)
        self._tell({"program": job["program"]})
        output, over = self._collect(self._out, until)
        code = self._end(until) if not over else None
        os.set_blocking(self._errors, False)
        told = _some(self._errors)
        if over or code is None:
            return _explained(over, job)
        if code == program.OUT_OF_MEMORY:
            return {"status": "memory", "told": "MemoryError", "output": ""}
        if code and not told:
            told = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return {
            "status": "failed" if code else "ended",
            "told": told,
            "output": output.decode(errors="replace"),
        }

    def _call(self, until: float) -> dict[str, Any]:
        job = self._job
        request = {"do": "call", "of": job["name"], "arguments": job["arguments"]}
        same = {name: job[name] for name in ("program", "prelude", "bare")}
        self._tell(same | {"requests": [json.dumps(request)]})
        output, over = self._collect(self._answers, until)
        return _explained(over, job) if over else _returned(output)

    def _tests(self, until: float) -> dict[str, Any]:
        job = self._job
        self._tell({"program": job["program"], "prelude": job["prelude"], "bare": False, "requests": None})
        read, verdict = os.pipe()
        files = dict.fromkeys(range(3), self._nothing) | {3: self._ask, 4: self._answers, 5: verdict}
        judge = self._start(files, self._run_tests)
        for end in (self._ask, self._answers, verdict):
            os.close(end)
        output, over = self._collect(read, until, judge)
        if over:
            return _explained(over, job)
        kind, _, told = output.decode(errors="replace").partition("\t")
        status = {"pass": "ended", "memory": "memory"}.get(kind, "failed")
        return {
            "status": status,
            "told": told or ("" if kind == "pass" else "the program ended"),
            "output": "",
        }

    # Processes

    def _start(self, files: dict[int, int], run: Callable[[], None]) -> int:
        """A process that has the files of `files` (its number: ours) and no others."""
        pid = os.fork()
        if pid:
            self._running.append(pid)
            return pid
        try:
            os.setsid()
            if kernel.LINUX:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            _only(files)
            os.environ.clear()
            os.environ.update(ENVIRONMENT)
            run()
        finally:
            os._exit(1)

    def _tell(self, part: dict[str, Any]) -> None:
        """Send the program's process its part of the job, all of which it reads before the program starts."""
        limits = {name: self._job[name] for name in ("cpu", "memory", "file_bytes")}
        _write(self._ask, json.dumps(part | limits) + "\n")

    def _run_program(self) -> None:
        told = os.fdopen(3, encoding="utf-8")
        part = json.loads(told.readline())
        self._restrict(part)
        if "requests" not in part:
            os.closerange(3, 6)
            program.run_script(part["program"])
        for number in range(3):
            os.dup2(5, number)
        os.close(5)
        requests = told if part["requests"] is None else part["requests"]
        program.serve_calls(part["prelude"], part["program"], requests, 4, bare=part["bare"])

    def _run_tests(self) -> None:
        self._restrict(self._job)
        examiner.examine(self._job["setup"], self._job["tests"], self._job["names"], 3, 4, 5)

    def _restrict(self, limits: dict[str, Any]) -> None:
        walls.restrict(
            self._level, self._view, self._lent, seconds=math.ceil(limits["cpu"]) + 1,
            memory=limits["memory"], file_bytes=limits["file_bytes"],
        )  # fmt: skip

    def _collect(self, read: int, until: float, judge: int | None = None) -> tuple[bytes, str]:
        """All that comes out of `read`, and which limit was exceeded meanwhile, if one was."""
        parts: list[bytes] = []
        size = 0
        waiting = select.poll()
        waiting.register(read, select.POLLIN)
        while True:
            if not waiting.poll(TICK * 1000):
                if time.monotonic() > until or any(self._spent(p) for p in (self._program, judge) if p):
                    return b"", "timeout"
                continue
            part = os.read(read, 1 << 16)
            size += len(part)
            if size > self._job["output"]:
                return b"", "output"
            if not part:
                return b"".join(parts), "timeout" if self._spent(self._program) else ""
            parts.append(part)
            if time.monotonic() > until:
                return b"", "timeout"

    def _spent(self, pid: int) -> bool:
        """Whether a process has used its CPU time."""
        with contextlib.suppress(OSError):
            return bool(time.clock_gettime(~pid << 3 | 2) > self._job["cpu"])  # CPUCLOCK_SCHED of a process
        return False

    def _end(self, until: float) -> int | None:
        """The program's exit code, negative for a signal; None when it does not end in time."""
        while True:
            done, status, usage = os.wait4(self._program, os.WNOHANG)
            if done:
                self._running.remove(self._program)
                if usage.ru_utime + usage.ru_stime > self._job["cpu"]:
                    return None
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until or self._spent(self._program):
                return None
            time.sleep(0.001)


def _only(files: dict[int, int]) -> None:
    """Keep the files that are named under their new numbers, and close all others."""
    aside = {new: fcntl.fcntl(old, fcntl.F_DUPFD, 1 << 8) for new, old in files.items()}
    for new, old in aside.items():
        os.dup2(old, new)
    os.closerange(max(files) + 1, 1 << 16)


def _write(file: int, text: str) -> None:
    view = memoryview(text.encode("utf-8", "replace"))
    while view:
        view = view[os.write(file, view) :]


def _some(file: int) -> str:
    with contextlib.suppress(BlockingIOError):
        return " ".join(os.read(file, TOLD).decode(errors="replace").split())
    return ""


def _explained(over: str, job: dict[str, Any]) -> dict[str, Any]:
    if over == "output":
        return {"status": "failed", "told": f"more than {job['output']:,} bytes of output", "output": ""}
    return {"status": "timeout", "told": "out of time", "output": ""}


def _returned(output: bytes) -> dict[str, Any]:
    """The outcome that the answers to loading and to one call amount to."""
    for line in output.splitlines()[:2]:
        try:
            answer = json.loads(line)
            failed, told = answer.get("error"), str(answer.get("told", ""))[:TOLD]
            value = str(answer.get("value", ""))
        except (ValueError, AttributeError, RecursionError):
            break
        if failed:
            status = "memory" if failed == "MemoryError" else "failed"
            return {"status": status, "told": f"{failed}: {told}", "output": ""}
    else:
        if output.count(b"\n") > 1:
            return {"status": "ended", "told": "", "output": value}
    return {"status": "failed", "told": "the program ended before it answered", "output": ""}
