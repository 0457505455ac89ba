"""The loss: negative log-likelihood of every supervised token; its weight is the caller's."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 1 << 24


def token_losses(
    hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor, at_once: int = 0
) -> torch.Tensor:
    """−ln p(target) of every token, in fp32, shape (s,).

    Nothing is summed here: an optimizer step weighs the tokens of all its passes by one rule
    (train/normalise.py), so the gradient does not depend on how rows are spread over passes.

    Args:
        hidden: (s, d) last hidden states at the supervised positions.
        head: output embedding, (s, d) → (s, vocabulary).
        targets: (s,) target ids.
        at_once: tokens whose logits exist at once; 0 takes as many as make `LOGITS_AT_ONCE` entries. They
            are made again in the backward pass, unless one piece holds them all.
    """
    at_once = at_once or max(1, LOGITS_AT_ONCE // int(head.weight.shape[0]))  # type: ignore[index]
    if len(targets) <= at_once:
        return _piece(hidden, head, targets)
    pieces = zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)
    return torch.cat([checkpoint(_piece, some, head, goals, use_reentrant=False) for some, goals in pieces])


def _piece(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="none")
