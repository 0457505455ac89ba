"""AdamW over the trained weights, in the numeric format of the recipe."""

from __future__ import annotations

from typing import Any

import torch

from dipscope.study import Recipe


def set_precision(model: Any, recipe: Recipe) -> None:
    """Bring the weights of a model into the format they are trained in: fp32, or bfloat16 for `bf16_pure`.

    Only parameters change: buffers such as the frequencies of the position code stay exact in either.
    """
    dtype = torch.bfloat16 if recipe.precision == "bf16_pure" else torch.float32
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def make_optimizer(model: Any, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with moments in the format of the weights; weight decay only where a parameter is a matrix.

    With `bf16_pure` every operation on a moment or a weight rounds to bfloat16, as in the paper's code; the
    fused kernel would compute a step in fp32 and round once, so it is not used there.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    kernel = {"foreach": True} if recipe.precision == "bf16_pure" else {"fused": True}
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, **kernel)
