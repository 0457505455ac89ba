"""The warm interpreter that programs are forked from: a line with a job in, a line with its outcome out.

Four generations: a guard, which ends all when its parent dies; the server, which is the first process
behind the walls; for every job a watcher, which ends what takes too long; and the processes of the job, of
which none is left when its outcome is told. Whoever dies takes those below along, and the kernel ends
whatever else is behind the walls when the server does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from dipscope.scoring.process import READY
from dipscope.scoring.sandbox import kernel, walls
from dipscope.scoring.sandbox.job import Job

# Imported once, so that a program finds them loaded.
WARM = (
    "bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools",
    "json", "math", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
NO_MORE = 3  # exit code of a watcher that found no job


def main() -> None:
    """Serve jobs at the level that the only argument names, from standard input to standard output."""
    (level,) = sys.argv[1:]
    for name in WARM:
        importlib.import_module(name)
    view = walls.View.here()
    parent = os.getppid()
    os.setsid()
    lent = level == "namespaces" and walls.enter_namespaces(view)
    server = _forked(lambda: _serve(level, view, lent))
    while os.getppid() == parent:
        if os.waitpid(server, os.WNOHANG)[0]:
            os._exit(1)
        time.sleep(0.2)
    os.kill(server, signal.SIGKILL)
    os._exit(1)


def _forked(run: Callable[[], None]) -> int:
    """A child that runs `run` and ends, and that does not outlive this process."""
    mine = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if kernel.LINUX:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() in (0, mine):  # 0: it stands in another namespace
            run()
            code = 0
    finally:
        os._exit(code)


def _serve(level: str, view: walls.View, lent: bool) -> None:
    # This process reads no job and writes no outcome: what it holds in memory, all programs find in theirs.
    sys.path[:] = [p for p in sys.path if walls.readable(p, view) and "site-packages" not in p]
    sys.meta_path.append(view)
    replies = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.write(replies, READY)
    gc.freeze()  # a collection in a child would copy every page it looks at
    waiting = select.poll()
    waiting.register(0, select.POLLIN)
    while True:
        waiting.poll()
        watcher = _forked(lambda: _do(replies, level, view, lent))
        _, status = os.waitpid(watcher, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == NO_MORE:
            return
        if code:
            os.write(replies, b'{"status": "unavailable", "told": "the watcher of a job died"}\n')


def _do(replies: int, level: str, view: walls.View, lent: bool) -> None:
    try:
        if level == "namespaces":
            walls.fresh_folder()
        job = Job(level, view, lent)
        line = _line()
        if not line:
            os._exit(NO_MORE)
        outcome = job.run(json.loads(line))
    except OSError as error:
        outcome = {"status": "unavailable", "told": f"{type(error).__name__}: {error}"}
    told = memoryview(json.dumps(outcome).encode() + b"\n")
    while told:
        told = told[os.write(replies, told) :]


def _line() -> bytes:
    """The next line of standard input; no more is sent before it is answered."""
    parts: list[bytes] = []
    while not (parts and parts[-1].endswith(b"\n")):
        part = os.read(0, 1 << 20)
        if not part:
            return b""
        parts.append(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
