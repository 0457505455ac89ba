"""How much each supervised token counts in the loss of one optimizer step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dipscope.study import Recipe


def row_weights(supervised: Sequence[int], recipe: Recipe) -> list[float]:
    """The factor of every token of a row in the sum that an optimizer step minimises, one a row.

    With `loss_norm = "tokens"` it is 1/N for all N supervised tokens of the step: the loss is their mean.

    With `"paper"` it is what the paper's code does on W = `virtual_world` ranks with micro-batches of
    `virtual_micro` rows: the mean over each micro-batch's own S_m tokens, summed over the micro-batches of a
    rank and averaged over ranks, hence 1/(S_m · W). Rows are dealt as its sampler deals them: row i of the
    step goes to rank i mod W, and a rank takes its rows in turn. With M micro-batches a rank the gradient is
    M times that of a mean of micro-batches, so `clip` bites earlier, and tokens beside short rows weigh more
    (source: verl/trainer/fsdp_sft_trainer_ours.py of the paper's code at its first release).

    Args:
        supervised: supervised tokens of each row of the step, in the step's order.
        recipe: `loss_norm`, `virtual_world`, `virtual_micro`.
    """
    if recipe.loss_norm == "tokens":
        return [1 / sum(supervised)] * len(supervised)
    world, size = recipe.virtual_world, recipe.virtual_micro
    micro_of = [(row % world, row // world // size) for row in range(len(supervised))]
    tokens: dict[tuple[int, int], int] = defaultdict(int)
    for micro, count in zip(micro_of, supervised, strict=True):
        tokens[micro] += count
    return [1 / (tokens[micro] * world) for micro in micro_of]
