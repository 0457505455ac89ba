"""The worker process of `verifiers`: a line of (gold, answer) pairs in, one verdict a line out.

Limits hold for each pair and count CPU time, so that a busy machine changes no verdict. A timer raises out of
Python code; where that cannot reach, in one long call into C, the kernel ends the process.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from dipscope.scoring import whole
from dipscope.scoring.process import serve
from dipscope.scoring.verify import Finding, decide

MEMORY = 2 << 30
GRACE = 1.0  # CPU seconds between the timer and the kernel's end
# What sympy and its parser set up at their first use, before limits count.
_WARM = (
    (r"\sqrt{12}", r"2\sqrt{3}"),
    ("x^2-1=0", "2x^2=2"),
    (r"\frac{\pi}{\sin 1}", "2x+1"),
    ('{"numbers": [1, 2], "target": 3}', "1 + 2"),
)


class OutOfTime(BaseException):
    """The CPU time of a pair is spent. Not an Exception: math-verify and sympy swallow those."""


class _Clock:
    """Limits the CPU time of one pair, started before it and stopped after it."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.runs, self.rang = seconds, False, False
        signal.signal(signal.SIGPROF, self._ring)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self.runs:
            self.rang = True
            raise OutOfTime

    def start(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        spent = usage.ru_utime + usage.ru_stime
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = math.ceil(spent + self.seconds + GRACE)
        resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))
        self.runs, self.rang = True, False
        signal.setitimer(signal.ITIMER_PROF, self.seconds, 0.25)  # again, should a bare except swallow it

    def stop(self) -> None:
        self.runs = False
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _verdict(rule: Callable[[str, str], Finding], gold: str, answer: str, clock: _Clock) -> tuple[str, str]:
    try:
        try:
            clock.start()
            found = rule(gold, answer)
        finally:
            clock.stop()
    except OutOfTime:
        clock.stop()
        return "error", "out of time"
    except MemoryError:
        return "error", "out of memory"
    except Exception as error:
        return "error", type(error).__name__
    if clock.rang:
        return "error", "out of time"
    # math-verify takes a lack of memory for a difference.
    return ("error", "out of memory") if found[0] == "wrong" and _large() else found


def _large() -> bool:
    """Whether this process was ever larger than half of what it may be."""
    unit = 1 if sys.platform == "darwin" else 1024
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit <= MEMORY // 2:
        return False
    # Linux hands the largest size on to a process that is started, so that a large parent makes every worker
    # look large; the high-water mark of the address space begins anew.
    try:
        with Path("/proc/self/status").open(encoding="ascii") as status:
            mark = next((line for line in status if line.startswith("VmHWM:")), None)
    except OSError:
        return True
    return mark is None or int(mark.split()[1]) * 1024 > MEMORY // 2


def main() -> None:
    """Serve; the arguments are the CPU seconds of one pair and the rule it is judged by."""
    rule = whole.decide if sys.argv[2] == "whole" else decide
    for pair in _WARM:
        rule(*pair)
    clock = _Clock(float(sys.argv[1]))

    def answer(line: bytes) -> Iterator[bytes]:
        for gold, said in json.loads(line):
            yield json.dumps(_verdict(rule, gold, said, clock)).encode()
            if _large():
                sys.exit()  # a new process takes over

    serve(answer, MEMORY)


if __name__ == "__main__":
    main()
