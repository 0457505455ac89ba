"""What a step of training tells besides its loss: losses by part, changed weights, speed, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from transformers import AutoTokenizer

from dipscope import hardware
from dipscope.data.tokenize import Example
from dipscope.study import Recipe
from dipscope.train import sharding
from dipscope.train.flops import Flops
from dipscope.train.packing import input_length
from dipscope.train.parts import PartFinder, Parts
from dipscope.train.world import current

QUANTILES = (0.1, 0.5, 0.9, 0.99)
WEIGHTS_SEEN = 65_536  # of a tensor: shares of all weights come out within a part in a thousand
MOMENTS_SEEN = 256

Total = Callable[[list[float]], list[float]]  # sums each of some numbers over all ranks


def summarise(losses: Sequence[torch.Tensor], parts: Sequence[Parts]) -> dict[str, float]:
    """Mean and quantiles of the loss of a step's tokens, by the part of the response they stand in.

    Args:
        losses: −ln p of every supervised token, one tensor a row, on any device.
        parts: how each row divides.

    Returns:
        `loss_thinking` and `loss_answer`, the means in nats, and their quantiles as `loss_thinking_q50` and
        so on. A part that no row has is left out. The end's loss is in the step's report itself.
    """
    values = torch.cat(list(losses)).float().cpu().numpy()  # the one transfer
    counts = np.array([(p.thinking, p.answer, p.eos) for p in parts], np.int64)
    part = np.repeat(np.tile(np.arange(3), len(parts)), counts.ravel())
    told: dict[str, float] = {}
    for number, name in enumerate(("thinking", "answer")):
        some = values[part == number]
        if not len(some):
            continue
        told[f"loss_{name}"] = float(some.mean(dtype=np.float64))
        for share, value in zip(QUANTILES, np.quantile(some, QUANTILES), strict=True):
            told[f"loss_{name}_q{round(share * 100)}"] = float(value)
    return told


def spread(count: int, limit: int) -> NDArray[np.int64] | None:
    """At most `limit` places out of `count`, evenly spread; None for all of them.

    Each of `limit` equal stretches gives one place. Where in its stretch follows the golden ratio, because a
    fixed distance would meet the same few columns of a matrix over and over.
    """
    if count <= limit:
        return None
    edges = np.arange(limit + 1, dtype=np.int64) * count // limit
    inside = np.modf(np.arange(1, limit + 1) * ((5**0.5 - 1) / 2))[0]
    places: NDArray[np.int64] = edges[:-1] + (inside * np.diff(edges)).astype(np.int64)
    return places


class _Sample:
    """The same entries of one parameter (of this rank's shard of it) at any time.

    Attributes:
        count: entries that this rank answers for: of a parameter that all ranks hold whole, its share.
        size: entries in the sample.
        stands_for: how many of `count` one of them stands for.
    """

    def __init__(self, parameter: torch.Tensor, limit: int, ranks: int) -> None:
        here = sharding.local(parameter)
        self.count = here.numel() / (1 if here is not parameter else ranks)
        places = spread(here.numel(), limit)
        self.places = None if places is None else torch.from_numpy(places).to(here.device)
        self.size = min(here.numel(), limit)
        self.stands_for = self.count / self.size if self.size else 0.0

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of these entries of a tensor that is shaped as the parameter is."""
        flat = sharding.local(tensor.detach()).flatten()
        return flat.clone() if self.places is None else flat.index_select(0, self.places)


class UpdateWatch:
    """Looks at a fixed sample of weights and second moments before and after each update.

    A bfloat16 number has 8 significant bits, so a change below 1/512 of it is always rounded away. Small
    updates then leave a weight as it is; and a second moment cannot fall at all, since a step would lower it
    by (1 − β2) of itself at most, 1/1000 for the usual β2.

    Args:
        optimizer: AdamW, whose parameters are watched.
        ranks: how many share the model; matrices may be sharded over them, the rest is whole on each.
        total: sums over them; all ranks ask for it together.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, ranks: int = 1, total: Total = list) -> None:
        self.optimizer, self.total = optimizer, total
        self.watched = [
            (p, _Sample(p, WEIGHTS_SEEN, ranks), _Sample(p, MOMENTS_SEEN, ranks))
            for group in optimizer.param_groups
            for p in group["params"]
        ]

    @torch.no_grad()
    def before(self) -> None:
        """Keep what the update is about to change. The gradients are those it will use, clipped."""
        self._weights = [weights.of(p) for p, weights, _ in self.watched]
        state = self.optimizer.state
        self._moving = [(p, seen) for p, _, seen in self.watched if p.grad is not None and state.get(p)]
        if self._moving:
            self._moments = self._seen_moments()
            gradients = torch.cat([seen.of(p.grad) for p, seen in self._moving])
            self._due = gradients.float().square() < self._moments.float()

    @torch.no_grad()
    def after(self) -> dict[str, float]:
        """What the update did.

        Returns:
            `changed`: the share of the trained weights whose stored value is another than before.
            `decayed`: of the second moments that the step had to lower, those above their squared gradient,
            the share that fell; left out where there were none, as at a first step.
        """
        pairs = zip(self.watched, self._weights, strict=True)
        counts = torch.stack([torch.count_nonzero(seen.of(p) != old) for (p, seen, _), old in pairs])
        changed = float(np.dot(counts.tolist(), [seen.stands_for for _, seen, _ in self.watched]))
        due = fallen = 0.0
        if self._moving:
            fell = self._due & (self._seen_moments() < self._moments)
            weight = np.array([seen.stands_for for _, seen in self._moving])
            stand_for = np.repeat(weight, [seen.size for _, seen in self._moving])
            due, fallen = (torch.stack([self._due, fell]).cpu().numpy() @ stand_for).tolist()
        self._weights = []
        everything = sum(seen.count for _, seen, _ in self.watched)
        changed, everything, due, fallen = self.total([changed, everything, due, fallen])
        told = {"changed": changed / everything}
        return told | {"decayed": fallen / due} if due else told

    def _seen_moments(self) -> torch.Tensor:
        return torch.cat([seen.of(self.optimizer.state[p]["exp_avg_sq"]) for p, seen in self._moving])


class Diagnostics:
    """Everything of a step's report that the step does not need itself.

    Args:
        model: the model that is trained, on its device.
        optimizer: what updates it.
        source: the folder of the tokenizer that made the rows; without one losses are not told by part.
        recipe: how it is trained.
    """

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, source: Path, recipe: Recipe) -> None:
        world = current()
        self.device, self.ranks = world.device, world.size
        self.finder, self.parts = _finder(source), dict[int, Parts]()
        self.update = UpdateWatch(optimizer, world.size, _over_ranks)
        self.flops = Flops.of(model)
        self.peak = hardware.peak_rate(self.device, recipe.precision != "fp32")
        hardware.reset_peak_memory(self.device)

    def before(self) -> None:
        """To be called right before the update, with gradients clipped."""
        self.update.before()

    def after(
        self,
        chosen: NDArray[np.int64],
        rows: Sequence[Example],
        losses: Sequence[torch.Tensor],
        started: float,
    ) -> dict[str, float]:
        """To be called after the update, by all ranks.

        Args:
            chosen: the numbers of the step's rows in the dataset.
            rows: these rows.
            losses: −ln p of every supervised token, one tensor a row.
            started: `time.perf_counter()` when the step began.

        Returns:
            What `summarise` and `UpdateWatch.after` tell; `tokens_per_second` and `supervised_per_second`;
            `mfu`, the operations of `Flops` over what the ranks' devices could have done in that time, where
            that is known; `memory`, the highest use of this rank so far, in bytes.
        """
        told = self.update.after()
        if self.finder is not None:
            numbers = chosen.tolist()
            for number, row in zip(numbers, rows, strict=True):
                if number not in self.parts:
                    self.parts[number] = self.finder.parts(row)
            told |= summarise(losses, [self.parts[number] for number in numbers])
        seconds = time.perf_counter() - started
        told["tokens_per_second"] = sum(map(input_length, rows)) / seconds
        told["supervised_per_second"] = sum(len(row.target_ids) for row in rows) / seconds
        if self.flops is not None and self.peak is not None:
            told["mfu"] = self.flops.of_rows(rows) / (seconds * self.peak * self.ranks)
        told["memory"] = hardware.peak_memory(self.device)
        return told


def _finder(source: Path) -> PartFinder | None:
    try:
        return PartFinder(AutoTokenizer.from_pretrained(source, local_files_only=True))
    except (OSError, ValueError):
        return None


def _over_ranks(numbers: list[float]) -> list[float]:
    world = current()
    if world.size == 1:
        return numbers
    together = torch.tensor(numbers, dtype=torch.float64, device=world.device)
    dist.all_reduce(together)
    return [float(number) for number in together.tolist()]
