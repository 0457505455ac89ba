"""Scores reasoning-gym answers in a process of its own, one JSON line in, one out.

Several of the verifiers parse the answer with sympy, which evaluates text: a model's answer is therefore
scored where it can be killed, has no secrets in its environment, may write no file and start no process.
"""

from __future__ import annotations

import json
from typing import Any

from dipscope.scoring.process import serve_objects

MEMORY = 4 << 30


def dataset(name: str, config: dict[str, Any], seed: int, size: int) -> Any:
    """A generator's items by index; those of a longer data set start with those of a shorter one."""
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=seed, size=size, **config)


def main() -> None:
    """Serve until standard input ends."""
    import reasoning_gym  # noqa: F401 (all of it, before the doors close)

    made: dict[str, Any] = {}

    def reply(ask: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps([ask["name"], ask["config"], ask["seed"], ask["size"]])
        if key not in made:
            made[key] = dataset(ask["name"], ask["config"], ask["seed"], ask["size"])
        return {"score": float(made[key].score_answer(ask["answer"], made[key][ask["index"]]))}

    serve_objects(reply, MEMORY)


if __name__ == "__main__":
    main()
