"""Ways to compute causal attention inside documents that lie one after the other, and a trial of each.

A kernel takes queries (1, heads, n, head size), keys and values (1, key heads, n, head size), the tokens of
each document, the factor of the scores (None: 1/√head size) and the dropout of the attention weights. It
returns (1, n, heads, head size): each token has seen its own document up to itself, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...], float | None, float], torch.Tensor
]
_TRIED = (200, 1, 37, 130)  # tokens of a trial's documents: across blocks of 64 and of 128, and one alone
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}  # of the norm


def loop(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """The kernel that every machine has: torch's own attention, neighbours of equal length in one call."""
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    gqa = query.shape[1] != key.shape[1]
    outputs = []
    pieces = zip(*(torch.split(x[0], sizes, 1) for x in (query, key, value)), strict=True)
    for (length, number), piece in zip(runs, pieces, strict=True):
        q, k, v = (x.unflatten(1, (number, length)).transpose(0, 1) for x in piece)
        out = scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=gqa
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None]


def varlen(function: Callable[..., torch.Tensor]) -> Kernel:
    """The kernel that is one call of a function with the signature of `flash_attn_varlen_func`.

    Its backward pass adds up in a fixed order where torch is told to be deterministic.
    """

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: tuple[int, ...],
        scaling: float | None,
        dropout: float,
    ) -> torch.Tensor:
        starts, longest = _starts(lengths, query.device), max(lengths)
        q, k, v = (x[0].transpose(0, 1) for x in _lowered(query, key, value))
        fixed = torch.are_deterministic_algorithms_enabled()
        out = function(
            q, k, v, starts, starts, longest, longest,
            dropout_p=dropout, softmax_scale=scaling, causal=True, deterministic=fixed,
        )  # fmt: skip
        return out[None]

    return kernel


def masked(function: Callable[..., torch.Tensor]) -> Kernel:
    """The kernel that is one call of torch's `flex_attention`, or of what torch compiled it to.

    Blocks of 128 x 128 scores that lie across documents are left out. It has no dropout.
    """

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: tuple[int, ...],
        scaling: float | None,
        dropout: float,
    ) -> torch.Tensor:
        if dropout:
            raise ValueError("flex attention has no dropout")
        q, k, v = _lowered(query, key, value)
        gqa = query.shape[1] != key.shape[1]
        mask = _block_mask(lengths, query.device)
        return function(q, k, v, block_mask=mask, scale=scaling, enable_gqa=gqa).transpose(1, 2)

    return kernel


def candidates(
    device: torch.device, dtype: torch.dtype, dropout: float = 0.0
) -> Iterator[tuple[str, Kernel]]:
    """Name and kernel of what needs one call a layer, fastest first, as far as it is installed.

    On a GPU that is flash-attn (Dao 2023), the same algorithm inside torch from 2.10 on, and flex attention,
    which also computes in fp32; only flash-attn has dropout. Elsewhere there is none.

    Args:
        device: where the model is.
        dtype: format of the computation.
        dropout: of the attention weights.
    """
    if device.type != "cuda":
        return
    if dtype != torch.float32:
        with suppress(ImportError):
            from flash_attn import flash_attn_varlen_func

            yield "flash-attn", varlen(flash_attn_varlen_func)
    if dropout:
        return
    if dtype != torch.float32:
        with suppress(ImportError):
            from torch.nn.attention.varlen import varlen_attn

            yield "torch varlen", varlen(_as_flash(varlen_attn))
    from torch.nn.attention.flex_attention import flex_attention

    yield "flex", masked(torch.compile(flex_attention, dynamic=True))


def flaw(
    kernel: Kernel, heads: int, key_heads: int, size: int, device: torch.device, dtype: torch.dtype
) -> str:
    """Try a kernel on random documents: does it work, equal the loop, and equal itself?

    Output and gradients are compared with those of `loop` in fp32 on the same rounded inputs; and, where
    torch is told to be deterministic, with those of a second run, bit for bit.

    Args:
        kernel: to be tried.
        heads: of the queries.
        key_heads: of keys and values; they divide the heads.
        size: of a head.
        device: to try it on.
        dtype: format of the computation.

    Returns:
        What is wrong, as a clause; empty where nothing is.
    """
    draw = torch.Generator().manual_seed(0)
    widths = (heads, key_heads, key_heads, heads)
    q, k, v, grad = (torch.randn(1, n, sum(_TRIED), size, generator=draw).to(device, dtype) for n in widths)

    def run(tried: Kernel, kind: torch.dtype) -> list[torch.Tensor]:
        inputs = [x.detach().to(kind).requires_grad_() for x in (q, k, v)]
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            out = tried(inputs[0], inputs[1], inputs[2], _TRIED, size**-0.5, 0.0)
            return [out.detach(), *torch.autograd.grad(out, inputs, grad.transpose(1, 2).to(out.dtype))]

    try:
        found = run(kernel, dtype)
        again = run(kernel, dtype) if torch.are_deterministic_algorithms_enabled() else found
    except Exception as error:  # a foreign kernel and its compiler may raise anything
        return f"it fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    names = ("output", "gradient of the queries", "gradient of the keys", "gradient of the values")
    for name, one, expected, second in zip(names, found, run(loop, torch.float32), again, strict=True):
        gap = float((one.float() - expected).norm() / expected.norm())
        if not gap < _TOLERANCE[dtype]:
            return f"its {name} differs by {gap:.1e} from documents one by one"
        if not torch.equal(one, second):
            return f"its {name} is not the same twice"
    return ""


def _lowered(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Tensors in autocast's format where it is on: it knows torch's own attention, not these functions."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [x.to(torch.get_autocast_dtype(kind)) for x in tensors]


@lru_cache(maxsize=1)  # all layers of a pass share it, also when checkpointing computes them again
def _starts(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(documents + 1,) where each document starts, and where the last one ends."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


@lru_cache(maxsize=1)
def _block_mask(lengths: tuple[int, ...], device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)

    def visible(_batch: Any, _head: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q >= k) & (document[q] == document[k])

    return create_block_mask(visible, None, None, len(document), len(document), device=device)


def _as_flash(varlen_attn: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    """The `varlen_attn` of torch with flash-attn's names; it is deterministic where torch is told to be."""

    def call(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *where: Any, softmax_scale: float | None, **_: Any
    ) -> torch.Tensor:
        gqa = q.shape[1] != k.shape[1]
        out: torch.Tensor = varlen_attn(
            q, k, v, *where, scale=softmax_scale, window_size=(-1, 0), enable_gqa=gqa
        )
        return out

    return call
