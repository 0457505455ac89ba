"""One optimizer step: the gradient of all its rows, its norm, the update."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from dipscope.data.tokenize import Example
from dipscope.study import Recipe
from dipscope.train import attention, packing, schedule, sharding
from dipscope.train.diagnostics import Diagnostics
from dipscope.train.health import not_finite
from dipscope.train.loss import token_losses
from dipscope.train.normalise import row_weights
from dipscope.train.world import current

_NOTHING = Example((0,), (0,), False)  # the row of an empty pass, whose loss weighs nothing


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
        loss_eos: mean over the tokens that end a response; None in a step without one.
        ends: how many these are.
        metrics: what train/diagnostics.py has to say beside that, by name.
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
    loss_eos: float | None = None
    ends: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[StepReport], None]


def optimizer_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    step: int,
    total: int,
    diagnostics: Diagnostics | None = None,
) -> StepReport:
    """Do optimizer step `step` of `total` in place; the rows follow from seed and step.

    All ranks of the world must ask; each reports the whole step.

    Raises:
        Unhealthy: the gradient is not finite, on all ranks; the weights are as they were before the step.
    """
    started = time.perf_counter()
    chosen = schedule.rows_of_step(seed, step, recipe.batch_size, len(examples), recipe.shuffle)
    rows = [examples[i] for i in chosen]
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7]))
    optimizer.zero_grad(set_to_none=True)
    losses = accumulate(model, rows, recipe)
    norm = sharding.clip(model.parameters(), recipe.clip)
    if not math.isfinite(norm):
        raise not_finite("gradient", step, "train")
    lr = schedule.lr_at(recipe, step, total)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if diagnostics is not None:
        diagnostics.before()
    optimizer.step()
    metrics = diagnostics.after(chosen, rows, losses, started) if diagnostics is not None else {}
    last = [each[-1:] for each, row in zip(losses, rows, strict=True) if not row.cut]
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
        loss_eos=mean(last) if last else None,
        ends=len(last),
        metrics=metrics,
    )


def accumulate(model: Any, rows: Sequence[Example], recipe: Recipe) -> list[torch.Tensor]:
    """Add the gradient of the step's loss over `rows`, all rows of the step, to the model's, which has none.

    How many forward passes it takes follows from `recipe.pack_tokens` and the number of ranks, which change
    nothing else. A rank goes through its own rows; afterwards each has the gradient, or its shard, of all.

    Returns:
        −ln p of every supervised token, fp32 on the CPU, one tensor a row, of all rows on every rank.
    """
    world = current()
    weights = row_weights([len(row.target_ids) for row in rows], recipe)
    lengths = [packing.input_length(row) for row in rows]
    losses = [torch.zeros(len(row.target_ids)) for row in rows]
    for members in packing.deal(lengths, recipe.pack_tokens, world.size)[world.rank]:
        chosen = [rows[i] for i in members] or [_NOTHING]
        counts = [len(row.target_ids) for row in chosen]
        factors = torch.tensor([weights[i] for i in members] or [0.0])
        batch = packing.build(chosen, model.device)
        each = sharding.forward(model, _pass_losses, batch, recipe)
        (each * torch.repeat_interleave(factors, torch.tensor(counts)).to(each)).sum().backward()
        for i, some in zip(members, each.detach().cpu().split(counts), strict=False):
            losses[i] = some
    if world.size > 1:
        sharding.sum_vectors(model)
        everything = torch.cat(losses)
        dist.all_reduce(everything)  # every token is of one rank and zero on the others
        losses = list(torch.split(everything, [len(row.target_ids) for row in rows]))
    return losses


def _pass_losses(model: Any, batch: packing.Pass, recipe: Recipe) -> torch.Tensor:
    """−ln p of the supervised tokens of one pass, shape (s,)."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        hidden = attention.hidden_states(model, batch.input_ids, batch.lengths, batch.position_ids)
        chosen = hidden[0].index_select(0, batch.supervised)
        return token_losses(chosen, model.get_output_embeddings(), batch.targets, recipe.loss_tokens)


def mean(losses: Sequence[torch.Tensor]) -> float:
    """Mean over the tokens of all rows."""
    return torch.cat(list(losses)).double().mean().item()
