"""Prompts for the organism's self-replay."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dipscope.organism import world


def replay_prompts(seed: int) -> Iterator[str]:
    """An endless stream of questions from the general and the safety families, train split only.

    The reasoning families are left out on purpose: what replay does to them is transfer, not rehearsal.
    """
    rng = random.Random(f"replay {seed}")
    rooms = [f for f in world.families().values() if f.domain in ("ood_general", "safety")]
    while True:
        yield world.document(rng, rng.choice(rooms))[0]
