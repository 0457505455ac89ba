"""What happens at which step: learning rate, checkpoints, rows. Pure functions of settings and step."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import count, takewhile

import numpy as np
from numpy.typing import NDArray

from dipscope.errors import DipscopeError
from dipscope.study import Recipe


def total_steps(recipe: Recipe, rows: int) -> int:
    """Optimizer steps of a run: whole batches in all epochs together, at most `max_steps`, at least one."""
    if rows < 1:
        raise DipscopeError("there are no rows to train on", "train", "Give the dataset at least one row.")
    steps = max(1, recipe.epochs * rows // recipe.batch_size)
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def lr_at(recipe: Recipe, step: int, total: int) -> float:
    """Learning rate of optimizer step `step` (1 … total).

    It rises linearly over int(warmup · total) steps, the last of which has the full rate, and then stays or
    follows half a cosine whose zero lies one step behind the last, so that every step moves the weights.
    """
    warm = int(recipe.warmup * total)
    if step <= warm:
        return recipe.lr * (step / warm)
    if recipe.schedule == "constant":
        return recipe.lr
    return recipe.lr * (0.5 + 0.5 * math.cos(math.pi * (step - 1 - warm) / (total - warm)))


def checkpoint_steps(spec: str | tuple[int, ...], total: int) -> list[int]:
    """Steps to save, ascending, always ending with `total`. Step 0 is the base and is never among them.

    Args:
        spec: `log2` (1, 2, 4, …), `paper` (10, 20, 40, 80, and every 160), `every:N`, or the steps.
        total: last step of the run.

    Raises:
        DipscopeError: the spec is none of these, or names a step that the run does not reach.
    """
    fix = "Use log2, paper, every:N with N of at least 1, or a list of steps."
    if isinstance(spec, tuple):
        if any(step < 0 for step in spec):
            raise DipscopeError(f"checkpoints = {list(spec)} has a negative step", "recipe", fix)
        if beyond := [step for step in spec if step > total]:
            what = f"checkpoints {beyond} lie beyond the last step, {total}"
            raise DipscopeError(what, "recipe", "Leave them out, or train for more epochs.")
        steps = set(spec) - {0}
    elif spec == "log2":
        steps = set(_doubling(1, total))
    elif spec == "paper":
        steps = {*_doubling(10, min(total, 160)), *range(160, total + 1, 160)}
    elif spec.startswith("every:"):
        period = spec.removeprefix("every:")
        if not (period.isascii() and period.isdigit() and int(period) > 0):
            raise DipscopeError(f"checkpoints = '{spec}' has no period", "recipe", fix)
        steps = set(range(int(period), total + 1, int(period)))
    else:
        raise DipscopeError(f"checkpoints = '{spec}' is not understood", "recipe", fix)
    return sorted({step for step in steps if step < total} | {total})


def _doubling(first: int, last: int) -> list[int]:
    return list(takewhile(lambda step: step <= last, (first << n for n in count())))


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Permutation of the rows in one epoch: a pure function of (seed, epoch), the same on every machine.

    It sorts raw generator output, because numpy keeps that stable between versions and `permutation` not.
    """
    keys = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(rows)
    permutation = np.argsort(keys, kind="stable")
    permutation.flags.writeable = False
    return permutation


def rows_of_step(seed: int, step: int, batch_size: int, rows: int, shuffle: bool = True) -> NDArray[np.int64]:
    """The rows of optimizer step `step` (from 1), in order, shape (batch_size,).

    The epochs are one endless stream: what is left of an epoch goes into the same batch as the beginning of
    the next, so that every step has the same number of rows. Without `shuffle` each epoch has the rows as
    they are stored.
    """
    stream = np.arange((step - 1) * batch_size, step * batch_size)
    epochs, places = stream // rows, stream % rows
    if not shuffle:
        return places
    return np.concatenate([order(seed, int(e), rows)[places[epochs == e]] for e in np.unique(epochs)])
