"""The completions in flight: cache rows on the device, bookkeeping in numpy, one row per slot."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipscope.engine.base import Completion, Finish, Request
from dipscope.engine.decoder import Decoder

_GROWTH = 64


class Slots:
    """`count` slots. A free slot keeps position 0, so that a step may run over it without harm.

    `keys` and `values` are one tensor (count, capacity, kv_heads, head_dim) per layer; the capacity grows to
    what the sequences at hand need.
    """

    def __init__(self, decoder: Decoder, count: int) -> None:
        self.decoder, self.count, self.capacity = decoder, count, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.live = np.zeros(count, dtype=bool)
        self.position = np.zeros(count, dtype=np.int64)  # where the next input token stands
        self.last = np.zeros(count, dtype=np.int64)  # the next input token
        self.made = np.zeros(count, dtype=np.int64)
        self.limit = np.zeros(count, dtype=np.int64)
        self.temperature, self.top_p = np.zeros(count), np.ones(count)
        self.top_k = np.zeros(count, dtype=np.int64)
        self.seed = np.zeros(count, dtype=np.uint64)
        self.stops = np.full((count, 1), -1, dtype=np.int64)
        self.tokens = np.zeros((count, 1), dtype=np.int64)
        self.keyed: list[str] = [""] * count
        self.taken_by: object = None
        self._needed = 0

    @property
    def _per_slot(self) -> list[NDArray[Any]]:
        return [
            self.live, self.position, self.last, self.made, self.limit, self.temperature, self.top_p,
            self.top_k, self.seed, self.stops, self.tokens,
        ]  # fmt: skip

    def reset(self) -> None:
        """Forget every sequence and the cache with them: its keys and values belong to other weights."""
        self.capacity, self.keys, self.values = 0, [], []
        self.live[:] = False
        self.taken_by = None

    def begin(self, requests: Collection[Request]) -> None:
        """Make room for a set of requests; what was in flight is dropped."""
        self.live[:] = False
        self.position[:] = 0
        self.taken_by = requests
        stops = max((len(r.stop_ids) for r in requests), default=0)
        self.stops = np.full((self.count, max(1, stops)), -1, dtype=np.int64)
        longest = max((r.sampling.max_tokens for r in requests), default=1)
        self.tokens = np.zeros((self.count, longest), dtype=np.int64)
        self._needed = max((len(r.prompt_ids) + r.sampling.max_tokens for r in requests), default=1)

    def reserve(self, length: int) -> None:
        """Grow the cache to hold `length` positions a slot, by half at least, and no further than needed."""
        if length <= self.capacity:
            return
        arch = self.decoder.arch
        wanted = min(max(length + _GROWTH, self.capacity * 3 // 2), max(self._needed, length))
        self.capacity = -(-wanted // _GROWTH) * _GROWTH

        def grown(old: Tensor | None) -> Tensor:
            # zeros, because a masked position still enters as 0 · value: leftover NaN would spread
            new = torch.zeros(
                self.count, self.capacity, arch.kv_heads, arch.head_dim,
                device=self.decoder.device, dtype=self.decoder.dtype,
            )  # fmt: skip
            if old is not None:
                new[:, : old.shape[1]] = old
            return new

        for i in range(arch.layers):  # layer by layer, so that old and new are never held whole together
            if i < len(self.keys):
                self.keys[i], self.values[i] = grown(self.keys[i]), grown(self.values[i])
            else:
                self.keys.append(grown(None))
                self.values.append(grown(None))

    def enter(self, slot: int, request: Request) -> None:
        """Give a free slot to a request; its prompt is put in the cache by the caller."""
        sampling = request.sampling
        self.live[slot] = True
        self.position[slot] = len(request.prompt_ids) - 1  # `advance` moves it past each token
        self.made[slot], self.limit[slot] = 0, sampling.max_tokens
        self.temperature[slot], self.top_p[slot] = sampling.temperature, sampling.top_p
        self.top_k[slot], self.seed[slot] = sampling.top_k, request.seed % 2**64
        self.stops[slot] = -1
        self.stops[slot, : len(request.stop_ids)] = request.stop_ids
        self.keyed[slot] = request.key

    def prompt_rows(self, where: NDArray[np.int64], spans: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Rows of a packed pass and the flat cache rows they belong to, for prompts entering `where`."""
        source = np.concatenate([np.arange(a, b) for a, b in spans])
        target = np.concatenate(
            [np.arange(b - a) + slot * self.capacity for slot, (a, b) in zip(where, spans, strict=True)]
        )
        device = self.decoder.device
        return torch.from_numpy(source).to(device), torch.from_numpy(target).to(device)

    def advance(
        self, where: NDArray[np.int64], tokens: NDArray[np.int64], usable: NDArray[np.bool_]
    ) -> list[Completion]:
        """Take one drawn token a slot; free the slots that end here and return their completions."""
        stopped = (self.stops[where] == tokens[:, None]).any(1)
        kept = usable & ~stopped
        grow = where[kept]
        self.tokens[grow, self.made[grow]] = tokens[kept]
        self.made[grow] += 1
        self.last[where] = tokens
        self.position[where] += 1
        done: list[Completion] = []
        for i in np.flatnonzero(~kept | (self.made[where] >= self.limit[where])).tolist():
            slot = int(where[i])
            finish: Finish = "error" if not usable[i] else "stop" if stopped[i] else "length"
            made = tuple(self.tokens[slot, : self.made[slot]].tolist())
            done.append(Completion(self.keyed[slot], made, finish))
            self.live[slot] = False
            self.position[slot] = 0
            if finish == "error":  # leftover NaN would reach the slot's next request through masked positions
                for cached in (*self.keys, *self.values):
                    cached[slot] = 0
        return done

    def compact(self) -> None:
        """Move the sequences of the highest slots into free lower ones, so that fewer rows are stepped."""
        live = np.flatnonzero(self.live)
        holes = np.flatnonzero(~self.live[: len(live)])
        if not len(holes):
            return
        movers = live[len(live) - len(holes) :]
        device = self.decoder.device
        source, target = torch.from_numpy(movers).to(device), torch.from_numpy(holes).to(device)
        span = int(self.position[movers].max()) + 1
        for cached in (*self.keys, *self.values):
            cached[target, :span] = cached[source, :span]
        for array in self._per_slot:
            array[holes] = array[movers]
        for mover, hole in zip(movers.tolist(), holes.tolist(), strict=True):
            self.keyed[hole] = self.keyed[mover]
        self.live[movers] = False
        self.position[movers] = 0
