"""Programs per second in the sandbox, by level and kind of job; prints one JSON line.

Run as: python benchmarks/sandbox.py [JOBS]

Each job runs a one-line program in a warm sandbox: `script` reads a number and prints it, `call` calls
a function, `tests` runs an assertion in a second process. CPU time is that of the server and of all that it
started; wall time is one job after the other.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable

import psutil

from dipscope.scoring.sandbox.run import LEVELS, Limits, Outcome, Sandbox, offered

LIMITS = Limits()
FUNCTION = "def f(x): return x + 1"
KINDS: dict[str, Callable[[Sandbox], Outcome]] = {
    "script": lambda s: s.script("print(int(input()))", "1", LIMITS),
    "call": lambda s: s.call(FUNCTION, "f", [1], LIMITS),
    "tests": lambda s: s.tests(FUNCTION, "assert f(1) == 2", ["f"], LIMITS),
}


def spent(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def measured(sandbox: Sandbox, run: Callable[[Sandbox], Outcome], jobs: int) -> dict[str, float]:
    assert run(sandbox).status == "ended"
    assert sandbox._process is not None
    (server,) = psutil.Process(sandbox._process.pid).children()
    cpu, begun = spent(server), time.perf_counter()
    for _ in range(jobs):
        assert run(sandbox).status == "ended"
    wall = time.perf_counter() - begun
    return {"per second": round(jobs / wall, 1), "CPU ms": round((spent(server) - cpu) / jobs * 1000, 2)}


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    found = {}
    for level in filter(offered, LEVELS):
        with Sandbox(level) as sandbox:
            found[level] = {kind: measured(sandbox, run, jobs) for kind, run in KINDS.items()}
    print(json.dumps({"benchmark": "sandbox", "machine": platform.machine(), "jobs": jobs, **found}))


if __name__ == "__main__":
    main()
