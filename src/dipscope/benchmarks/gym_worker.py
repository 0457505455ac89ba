"""Scores reasoning-gym answers in a process of its own, one JSON line in, one out.

Several of the verifiers parse the answer with sympy, which evaluates text: a model's answer is therefore
scored where it can be killed, has no secrets in its environment, may write no file and start no process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

MEMORY = 4 << 30
_READS = ("os.listdir", "os.scandir", "os.fwalk", "os.walk")
_DENIED = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "urllib.", "signal.", "webbrowser.")


def dataset(name: str, config: dict[str, Any], seed: int, size: int) -> Any:
    """A generator's items by index; those of a longer data set start with those of a shorter one."""
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=seed, size=size, **config)


def _deny(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(event)
    elif event.startswith(_DENIED) and event not in _READS:
        raise PermissionError(event)


def main() -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import reasoning_gym  # noqa: F401 (all of it, before the doors close)

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.addaudithook(_deny)
    made: dict[str, Any] = {}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            key = json.dumps([ask["name"], ask["config"], ask["seed"], ask["size"]])
            if key not in made:
                made[key] = dataset(ask["name"], ask["config"], ask["seed"], ask["size"])
            score = made[key].score_answer(ask["answer"], made[key][ask["index"]])
            reply: dict[str, Any] = {"score": float(score)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
