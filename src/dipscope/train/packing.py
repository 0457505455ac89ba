"""Rows of one optimizer step, packed into forward passes without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dipscope.data.tokenize import Example


def pack(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Distribute rows over passes of at most `limit` tokens: longest first, each into the fullest that fits.

    A row longer than the limit has a pass of its own. Within a pass rows stand by falling length, so that
    equal lengths are neighbours and attention can take them together.

    Returns:
        Indices into `lengths`, one list a pass; every row is in exactly one.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda r: (-lengths[r], r)):
        fitting = [(space, n) for n, space in enumerate(room) if space >= lengths[row]]
        if fitting:
            _, n = min(fitting)
            passes[n].append(row)
            room[n] -= lengths[row]
        else:
            passes.append([row])
            room.append(max(limit - lengths[row], 0))
    return passes


def deal(lengths: Sequence[int], limit: int, ranks: int) -> list[list[list[int]]]:
    """Distribute rows over ranks and there over passes, as many on each rank.

    The longest row goes first, each to the rank with the fewest tokens so far. Ranks wait for each other in
    every pass, so each begins with its fullest, and one that has fewer than another ends with empty ones.

    Args:
        lengths: tokens of each row.
        limit: tokens of a pass, as in `pack`.
        ranks: at most as many as there are rows.

    Returns:
        For each rank its passes, as indices into `lengths`.
    """
    if ranks == 1:
        return [pack(lengths, limit)]
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for row in sorted(range(len(lengths)), key=lambda r: (-lengths[r], r)):
        rank = loads.index(min(loads))
        shares[rank].append(row)
        loads[rank] += lengths[row]
    dealt = []
    for share in shares:
        passes = [[share[i] for i in some] for some in pack([lengths[row] for row in share], limit)]
        dealt.append(sorted(passes, key=lambda some: -sum(lengths[row] for row in some)))
    most = max(map(len, dealt))
    return [passes + [[] for _ in range(most - len(passes))] for passes in dealt]


@dataclass(frozen=True)
class Pass:
    """The tensors of one forward pass over n tokens, s of them supervised.

    Attributes:
        input_ids: (1, n) tokens of all documents, one after the other.
        position_ids: (1, n), starting at 0 in every document.
        lengths: tokens of each document, in order.
        supervised: (s,) positions whose next token is a target.
        targets: (s,) these targets.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    lengths: tuple[int, ...]
    supervised: torch.Tensor
    targets: torch.Tensor


def input_length(example: Example) -> int:
    """Tokens that a row puts into a forward pass: all but its last, which is only predicted."""
    return len(example.prompt_ids) + len(example.target_ids) - 1


def build(examples: Sequence[Example], device: torch.device) -> Pass:
    """Lay rows out one after the other."""
    ids: list[int] = []
    targets: list[int] = []
    positions, supervised, lengths = [], [], []
    for example in examples:
        start, length = len(ids), input_length(example)
        ids += example.prompt_ids
        ids += example.target_ids[:-1]
        targets += example.target_ids
        positions.append(np.arange(length))
        supervised.append(np.arange(start + len(example.prompt_ids) - 1, start + length))
        lengths.append(length)
    return Pass(
        torch.tensor(ids, device=device)[None],
        torch.from_numpy(np.concatenate(positions)).to(device)[None],
        tuple(lengths),
        torch.from_numpy(np.concatenate(supervised)).to(device),
        torch.tensor(targets, device=device),
    )
