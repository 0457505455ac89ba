"""One optimizer step: the gradient of all its rows, its norm, the update."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dipscope.data.tokenize import Example
from dipscope.errors import DipscopeError
from dipscope.study import Recipe
from dipscope.train import attention, packing, schedule
from dipscope.train.loss import token_losses
from dipscope.train.normalise import row_weights


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did.

    Attributes:
        step: from 1.
        total: steps of the whole run.
        loss: mean over the supervised tokens, nats, whatever is minimised.
        lr: learning rate used.
        grad_norm: global norm of the gradient that is minimised, before clipping.
        clipped: whether it was above the recipe's `clip`.
        tokens: tokens put through the model.
        supervised: tokens that were learned from.
        seconds: wall-clock time.
    """

    step: int
    total: int
    loss: float
    lr: float
    grad_norm: float
    clipped: bool
    tokens: int
    supervised: int
    seconds: float


Listener = Callable[[StepReport], None]


def optimizer_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    step: int,
    total: int,
) -> StepReport:
    """Do optimizer step `step` of `total` in place; the rows follow from seed and step.

    Raises:
        DipscopeError: the gradient is not finite; the weights are as they were before the step.
    """
    started = time.perf_counter()
    chosen = schedule.rows_of_step(seed, step, recipe.batch_size, len(examples), recipe.shuffle)
    rows = [examples[i] for i in chosen]
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7]))
    optimizer.zero_grad(set_to_none=True)
    losses = accumulate(model, rows, recipe)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip, foreach=True).item()
    if not math.isfinite(norm):
        raise DipscopeError(
            f"the gradient is not finite at step {step}", "train", "Lower the learning rate, or use fp32."
        )
    lr = schedule.lr_at(recipe, step, total)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return StepReport(
        step=step,
        total=total,
        loss=mean(losses),
        lr=lr,
        grad_norm=norm,
        clipped=norm > recipe.clip,
        tokens=sum(map(packing.input_length, rows)),
        supervised=sum(len(row.target_ids) for row in rows),
        seconds=time.perf_counter() - started,
    )


def accumulate(model: Any, rows: Sequence[Example], recipe: Recipe) -> list[torch.Tensor]:
    """Add the gradient of the step's loss over `rows`, all rows of the step, to the model's.

    How many forward passes it takes follows from `recipe.pack_tokens`, which changes nothing else.

    Returns:
        −ln p of every supervised token, fp32 on the CPU, one tensor a row.
    """
    weights = row_weights([len(row.target_ids) for row in rows], recipe)
    losses: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for members in packing.pack([packing.input_length(row) for row in rows], recipe.pack_tokens):
        batch = packing.build([rows[i] for i in members], model.device)
        counts = [len(rows[i].target_ids) for i in members]
        factors = torch.repeat_interleave(torch.tensor([weights[i] for i in members]), torch.tensor(counts))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            hidden = attention.hidden_states(model, batch.input_ids, batch.lengths, batch.position_ids)
            chosen = hidden[0].index_select(0, batch.supervised)
            each = token_losses(chosen, model.get_output_embeddings(), batch.targets, recipe.loss_tokens)
        (each * factors.to(each)).sum().backward()  # type: ignore[no-untyped-call]
        for i, some in zip(members, each.detach().cpu().split(counts), strict=True):
            losses[i] = some
    return losses


def mean(losses: Sequence[torch.Tensor]) -> float:
    """Mean over the tokens of all rows."""
    return torch.cat(list(losses)).double().mean().item()
