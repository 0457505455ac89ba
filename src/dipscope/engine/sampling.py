"""Drawing the next token. Each row's draw depends on its own logits, seed and step, and on nothing else."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHORTLIST = 1024
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def uniform(seeds: NDArray[np.uint64], steps: Ints) -> Floats:
    """Uniform number in [0, 1) for each (seed, step): SplitMix64 (Steele et al. 2014) used as a counter."""
    mixed = _mix(_mix(seeds + _GOLDEN) + steps.astype(np.uint64) * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw(
    logits: Tensor, temperature: Floats, top_p: Floats, top_k: Ints, seeds: NDArray[np.uint64], steps: Ints
) -> tuple[Ints, NDArray[np.bool_]]:
    """Draw one token per row by inverse CDF; temperature 0 takes the largest logit.

    The filters act on the tempered distribution, top-k first: top-p then keeps the fewest likeliest tokens
    whose mass reaches `top_p`.

    Args:
        logits: (R, V) float32.
        temperature: (R,), as are the remaining arguments; `top_k` 0 and `top_p` 1 switch a filter off.
        top_p: nucleus mass.
        top_k: number of tokens kept.
        seeds: the request's seed, modulo 2^64.
        steps: how many tokens the request has already.

    Returns:
        Tokens (R,) and whether the row's logits could be used (False where they are not finite).
    """
    best, picks = logits.max(-1)
    tokens, usable = picks.cpu().numpy(), torch.isfinite(best).cpu().numpy()
    warm = (temperature > 0) & usable
    if not warm.any():
        return tokens, usable
    vocab = logits.shape[1]
    filtered = (top_p < 1) | ((top_k > 0) & (top_k < vocab))
    u = uniform(seeds, steps)
    for group, narrow in ((warm & ~filtered, False), (warm & filtered, True)):
        rows = np.flatnonzero(group)
        if not len(rows):
            continue
        scaled = logits[_to(rows, logits)] / _to(temperature[rows], logits)[:, None].float()
        u_rows = _to(u[rows], logits)[:, None]
        if not narrow:
            tokens[rows] = _invert(scaled.softmax(-1).double(), u_rows).cpu().numpy()
            continue
        p, k = _to(top_p[rows], logits)[:, None], _to(top_k[rows], logits)[:, None]
        chosen, enough = _narrow(scaled, p, k, u_rows, min(_SHORTLIST, vocab))
        if not bool(enough.all()):
            rest = ~enough
            chosen[rest], _ = _narrow(scaled[rest], p[rest], k[rest], u_rows[rest], vocab)
        tokens[rows] = chosen.cpu().numpy()
    return tokens, usable


def _to(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)


def _invert(mass: Tensor, u: Tensor) -> Tensor:
    """Index of the first entry at which the cumulative mass (R, W) exceeds `u` (R, 1) of the total."""
    cumulative = mass.cumsum(-1)
    found = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)
    return found.clamp_(max=mass.shape[1] - 1).squeeze(1)


def _narrow(scaled: Tensor, p: Tensor, k: Tensor, u: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Draw among the `width` likeliest tokens; also says for which rows that many were enough."""
    values, order = scaled.topk(width, sorted=True)
    beyond = (k > 0) & (torch.arange(width, device=scaled.device) >= k)
    values = values.masked_fill(beyond, -torch.inf)
    total = torch.where(k > 0, values.logsumexp(-1, keepdim=True), scaled.logsumexp(-1, keepdim=True))
    mass = (values - total).double().exp()
    before = mass.cumsum(-1) - mass
    limited = ((k > 0) & (k <= width)).squeeze(1)
    enough = limited | ((k == 0).squeeze(1) & (before[:, -1] + mass[:, -1] >= p.squeeze(1)))
    pick = _invert(mass.masked_fill(before >= p, 0.0), u)
    return order.gather(1, pick[:, None]).squeeze(1), enough | (width == scaled.shape[1])
