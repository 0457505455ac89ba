"""The loss: negative log-likelihood summed over supervised tokens, divided once per optimizer step."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 1 << 24


def token_loss_sum(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Sum of −ln p(target) over tokens, in fp32.

    The sum is not divided here: an optimizer step divides the sums of all its passes by the number of all
    its supervised tokens, so the gradient does not depend on how rows are spread over passes.

    Args:
        hidden: (s, d) last hidden states at the supervised positions.
        head: output embedding, (s, d) → (s, vocabulary).
        targets: (s,) target ids.

    Returns:
        A scalar. Logits are made for at most `LOGITS_AT_ONCE` entries at a time, and made again in the
        backward pass, unless one piece holds them all.
    """
    rows = max(1, LOGITS_AT_ONCE // int(head.weight.shape[0]))  # type: ignore[index]
    if len(targets) <= rows:
        return _piece(hidden, head, targets)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for some, goals in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
        total = total + checkpoint(_piece, some, head, goals, use_reentrant=False)
    return total


def _piece(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="sum")
