"""The worker of `scoring.verifiers` with a `decide` that misbehaves as the answer asks it to."""

from __future__ import annotations

import os
import time

from dipscope.scoring import verify_worker
from dipscope.scoring.verify import Finding, decide


def _decide(gold: str, answer: str) -> Finding:
    task = answer.partition(" ")[0]
    if task == "die":
        os._exit(1)
    if task == "sleep":
        time.sleep(600)
    if task == "loop":
        while True:
            pass
    if task == "swallow":
        for _ in range(10**9):
            try:
                while True:
                    pass
            except BaseException:
                return "wrong", ""
    if task == "in-c":
        sum(range(10**12))
    if task == "allocate":
        bytearray(3 << 30)
    if task == "grow":
        return "wrong", str(len(b"x" * (1200 << 20)))
    if task == "pid":
        return "error", str(os.getpid())
    return decide(gold, answer)


if __name__ == "__main__":
    verify_worker.decide = _decide
    verify_worker.main()
