"""The embedded engine: one process, a slot-based cache with continuous refill, results that know no company.

A completion depends on its request and the weights alone, bit for bit: prompts are packed without padding and
attend one by one; a decode step gives each slot the same bits whatever the other slots hold, because rows of
the products and masked positions were found not to matter on this machine (`Decoder.rows_agree`). Where rows
do matter, decoding always runs over all slots and prompts are taken one at a time. The promise is tested on
CPU, in float32 and bfloat16; on CUDA it rests on the same construction and the same check of the products.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attention

from dipscope.engine import swap
from dipscope.engine.base import Completion, Request, Scored, ScoreRequest
from dipscope.engine.decoder import ROW_MULTIPLE, Architecture, Decoder
from dipscope.engine.sampling import draw
from dipscope.engine.slots import Slots
from dipscope.errors import DipscopeError

_PACK = 2048  # tokens in one prefill pass, unless a single prompt is longer
_BUCKET = 32  # decode attends over a multiple of this many positions
_SCORED_LOGITS = 1 << 24  # logits held at once while scoring


class LocalEngine:
    """Runs Llama, Qwen2 and Qwen3 checkpoints in this process.

    Args:
        device: `auto` takes CUDA where there is one.
        dtype: `auto` is float32 on CPU and bfloat16 on CUDA.
        slots: completions in flight, rounded up to a multiple of 8; by default 64 for tiny models, 32 above
            20 million weights.
    """

    def __init__(self, device: str = "auto", dtype: str = "auto", slots: int | None = None) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if dtype == "auto":
            dtype = "bfloat16" if self.device.type == "cuda" else "float32"
        if dtype not in ("float32", "bfloat16"):
            raise DipscopeError(f"the engine knows no dtype '{dtype}'", "engine", "Use float32 or bfloat16.")
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.swap_report: swap.SwapReport | None = None
        self._wanted_slots = slots
        self._decoder: Decoder | None = None
        self._row_invariant = False
        self._canaries: Tensor | None = None  # of the last checkpoint that passed
        self._hash = ""
        self._ready = False
        self._loads = 0
        self._slots: Slots | None = None

    @property
    def name(self) -> str:
        """Engine and numeric format as stored with every record."""
        return f"local/{str(self.dtype).removeprefix('torch.')}"

    @torch.inference_mode()
    def load(self, checkpoint: Path) -> None:
        """Put a checkpoint in place and verify it; `swap_report` holds the outcome.

        The same architecture reuses the memory of the one before. After a failure the engine is empty.

        Raises:
            DipscopeError: the checkpoint is unsupported or damaged, or (a fault) a check did not pass.
        """
        started = time.perf_counter()
        checkpoint = Path(checkpoint)
        self._ready, self._loads, self.swap_report = False, self._loads + 1, None
        arch = Architecture.read(checkpoint)
        files = swap.TensorFiles(checkpoint)
        fresh = self._decoder is None or self._decoder.arch != arch
        if fresh:
            self._decoder = self._slots = self._canaries = None
            self._decoder = Decoder(arch, self.device, self.dtype)
        decoder = self._require(ready=False)
        places = decoder.places()
        swap.check_names(files, places)
        swap.put(files, places)
        weights = swap.verify_tensors(checkpoint, places)
        if self._slots is None:
            wanted = self._wanted_slots or (64 if arch.parameters < 200_000_000 else 32)
            self._slots = Slots(decoder, -(-wanted // ROW_MULTIPLE) * ROW_MULTIPLE)
            sizes = [*range(ROW_MULTIPLE, self._slots.count + 1, ROW_MULTIPLE), 72, 128, 256, 520, _PACK]
            self._row_invariant = decoder.rows_agree(sorted(set(sizes)))
        self._slots.reset()
        ours = torch.tensor([s.logprobs for s in self._score(decoder, swap.canaries(arch.vocab))])
        changed = None if self._canaries is None else not torch.equal(ours, self._canaries)
        error = None
        if changed is None or (changed is False and weights != self._hash):
            theirs = swap.reference(checkpoint, self.device, self.dtype, arch.vocab)
            error = swap.compare_reference(checkpoint, ours, theirs, self.dtype)
        elif changed and weights == self._hash and not ours.isnan().any():
            raise swap.failed(checkpoint, "the same weights gave other canary log-probabilities")
        self._canaries, self._hash, self._ready = ours, weights, True
        self.swap_report = swap.SwapReport(
            checkpoint=str(checkpoint),
            weights_hash=weights,
            tensors=len(places),
            reference_error=error,
            changed=changed,
            row_invariant=self._row_invariant,
            seconds=time.perf_counter() - started,
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield each completion as soon as it ends. Requests enter in the given order.

        A completion whose logits stop being finite ends as `error` with the tokens it had.

        Raises:
            DipscopeError: no checkpoint is loaded, or a prompt is empty or outside the vocabulary.
        """
        decoder = self._require()
        for request in requests:
            self._check(request.key, request.prompt_ids)
        return self._generate(decoder, requests)

    def _generate(self, decoder: Decoder, requests: Sequence[Request]) -> Iterator[Completion]:
        slots, load = self._slots, self._loads
        assert slots is not None
        yield from (Completion(r.key, (), "length") for r in requests if r.sampling.max_tokens < 1)
        queue = deque(r for r in requests if r.sampling.max_tokens >= 1)
        slots.begin(queue)
        while queue or slots.live.any():
            if load != self._loads or slots.taken_by is not queue:
                raise DipscopeError(
                    "the engine was used for something else in the middle of generating",
                    self.name,
                    "Finish or drop one set of requests before the next.",
                    fault=True,
                )
            with torch.inference_mode():
                done = self._refill(decoder, slots, queue)
                if not done and slots.live.any():
                    done = self._step(decoder, slots, compact=not queue)
            yield from done

    def _refill(self, decoder: Decoder, slots: Slots, queue: deque[Request]) -> list[Completion]:
        """Prefill waiting requests into free slots, several at a time; equal prompts share one pass."""
        free = np.flatnonzero(~slots.live)
        # a pass over one short prompt costs nearly as much as one over several: wait for an eighth to be free
        if len(free) < min(len(queue), max(1, slots.count // 8)) or not queue:
            return []
        entering: list[tuple[int, int]] = []  # slot, index of its prompt
        prompts: dict[tuple[int, ...], int] = {}
        tokens = 0
        for slot in free.tolist():
            if not queue:
                break
            prompt = queue[0].prompt_ids
            if prompt not in prompts:
                tokens += len(prompt)
                if prompts and (tokens > _PACK or not self._row_invariant):
                    break
                prompts[prompt] = len(prompts)
            entering.append((slot, prompts[prompt]))
            slots.enter(slot, queue.popleft())
        order = np.array([index for _, index in entering])
        where = np.array([slot for slot, _ in entering])
        slots.reserve(max(map(len, prompts)) + 1)
        packed = _Packed(list(prompts), self.device)
        source, target = slots.prompt_rows(where, [packed.spans[i] for i in order])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            slots.keys[layer].flatten(0, 1).index_copy_(0, target, k[source])
            slots.values[layer].flatten(0, 1).index_copy_(0, target, v[source])
            return packed.attend(q, k, v)

        hidden = decoder.forward(packed.ids, packed.positions, attend)
        logits = decoder.logits(hidden[packed.last])
        return self._advance(slots, where, logits[torch.from_numpy(order).to(self.device)])

    def _step(self, decoder: Decoder, slots: Slots, compact: bool) -> list[Completion]:
        """One token for every live slot."""
        if compact and self._row_invariant:
            slots.compact()
        live = np.flatnonzero(slots.live)
        rows = slots.count
        if self._row_invariant:
            rows = -(-(int(live[-1]) + 1) // ROW_MULTIPLE) * ROW_MULTIPLE
        longest = int(slots.position[live].max()) + 1
        slots.reserve(longest)
        span = min(-(-longest // _BUCKET) * _BUCKET, slots.capacity)
        ids = torch.from_numpy(slots.last[:rows]).to(self.device)
        positions = torch.from_numpy(slots.position[:rows]).to(self.device)
        target = torch.arange(rows, device=self.device) * slots.capacity + positions
        beyond = torch.arange(span, device=self.device) > positions[:, None]
        mask = torch.zeros(beyond.shape, device=self.device, dtype=self.dtype)
        mask = mask.masked_fill_(beyond, -torch.inf)[:, None, None]
        kv_heads, size = decoder.arch.kv_heads, decoder.arch.head_dim

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = slots.keys[layer], slots.values[layer]
            keys.flatten(0, 1).index_copy_(0, target, k)
            values.flatten(0, 1).index_copy_(0, target, v)
            # the query heads of a group are rows of one problem: they share its keys without a copy
            mixed = attention(
                q.reshape(rows, kv_heads, -1, size),
                keys[:rows, :span].transpose(1, 2),
                values[:rows, :span].transpose(1, 2),
                attn_mask=mask,
            )
            return mixed.reshape(rows, -1)

        logits = decoder.logits(decoder.forward(ids, positions, attend))
        chosen = logits if len(live) == rows else logits[torch.from_numpy(live).to(self.device)]
        return self._advance(slots, live, chosen)

    def _advance(self, slots: Slots, where: np.ndarray, logits: Tensor) -> list[Completion]:
        tokens, usable = draw(
            logits,
            slots.temperature[where],
            slots.top_p[where],
            slots.top_k[where],
            slots.seed[where],
            slots.made[where],
        )
        return slots.advance(where, tokens, usable)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Scored]:
        """Yield token log-probabilities; requests with the same prompt share its prefill.

        Raises:
            DipscopeError: no checkpoint is loaded, or token ids are empty or outside the vocabulary.
        """
        decoder = self._require()
        for request in requests:
            self._check(request.key, request.prompt_ids)
            if request.continuation_ids:
                self._check(request.key, request.continuation_ids)
        return self._score(decoder, requests)

    def _score(self, decoder: Decoder, requests: Sequence[ScoreRequest]) -> Iterator[Scored]:
        by_prompt: dict[tuple[int, ...], list[ScoreRequest]] = {}
        for request in requests:
            by_prompt.setdefault(request.prompt_ids, []).append(request)
        load = self._loads
        for prompts in self._packs(list(by_prompt)):
            if load != self._loads:
                raise DipscopeError(
                    "another checkpoint was loaded in the middle of scoring", self.name, fault=True
                )
            with torch.inference_mode():
                scored = self._score_pack(decoder, [(p, by_prompt[p]) for p in prompts])
            yield from scored

    def _packs(self, sequences: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        pack: list[tuple[int, ...]] = []
        for sequence in sequences:
            if pack and (not self._row_invariant or sum(map(len, pack)) + len(sequence) > _PACK):
                yield pack
                pack = []
            pack.append(sequence)
        if pack:
            yield pack

    def _score_pack(
        self, decoder: Decoder, groups: list[tuple[tuple[int, ...], list[ScoreRequest]]]
    ) -> list[Scored]:
        """Prefill the prompts once, then run every continuation behind its own."""
        packed = _Packed([prompt for prompt, _ in groups], self.device)
        cache: list[tuple[Tensor, Tensor]] = []

        def keep(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.append((k, v))
            return packed.attend(q, k, v)

        ends = decoder.forward(packed.ids, packed.positions, keep)[packed.last]
        jobs = [(i, request) for i, (_, requests) in enumerate(groups) for request in requests]
        scored: list[Scored] = []
        while jobs:
            size, count = 0, 0
            while count < len(jobs) and (count == 0 or (self._row_invariant and size < _PACK)):
                size += len(jobs[count][1].continuation_ids)
                count += 1
            batch, jobs = jobs[:count], jobs[count:]
            scored += self._score_batch(decoder, packed, cache, ends, batch)
        return scored

    def _score_batch(
        self,
        decoder: Decoder,
        prompts: _Packed,
        cache: list[tuple[Tensor, Tensor]],
        ends: Tensor,
        batch: list[tuple[int, ScoreRequest]],
    ) -> list[Scored]:
        inputs = [
            (i, request.continuation_ids[:-1]) for i, request in batch if len(request.continuation_ids) > 1
        ]
        hidden: Tensor | None = None
        tails: Iterator[tuple[int, int]] = iter(())
        if inputs:
            spans = [prompts.spans[i] for i, _ in inputs]
            tail = _Packed([ids for _, ids in inputs], self.device, [b - a for a, b in spans])

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return tail.attend(q, k, v, [(cache[layer][0][a:b], cache[layer][1][a:b]) for a, b in spans])

            hidden, tails = decoder.forward(tail.ids, tail.positions, attend), iter(tail.spans)
        states: list[Tensor] = []
        for i, request in batch:
            if request.continuation_ids:
                states.append(ends[i : i + 1])
            if len(request.continuation_ids) > 1 and hidden is not None:
                a, b = next(tails)
                states.append(hidden[a:b])
        targets = [token for _, request in batch for token in request.continuation_ids]
        values: list[float] = []
        if states:
            rows = torch.cat(states)
            step = max(ROW_MULTIPLE, _SCORED_LOGITS // decoder.arch.vocab // ROW_MULTIPLE * ROW_MULTIPLE)
            for start in range(0, len(targets), step):
                logprobs = decoder.logits(rows[start : start + step]).log_softmax(-1)
                wanted = torch.tensor(targets[start : start + step], device=self.device)
                values += logprobs.gather(1, wanted[:, None]).squeeze(1).tolist()
        parts = iter(values)
        return [Scored(r.key, tuple(next(parts) for _ in r.continuation_ids)) for _, r in batch]

    def _require(self, ready: bool = True) -> Decoder:
        if self._decoder is None or (ready and not self._ready):
            raise DipscopeError("no checkpoint is loaded", self.name, "Load one first.", fault=True)
        return self._decoder

    def _check(self, key: str, ids: Sequence[int]) -> None:
        vocab = self._require().arch.vocab
        if not ids or min(ids) < 0 or max(ids) >= vocab:
            what = "token ids are outside the vocabulary" if ids else "the prompt has no tokens"
            raise DipscopeError(what, f"request {key}", "Does the tokenizer belong to this model?")


class _Packed:
    """Sequences laid end to end without padding between them, filled up to the row multiple."""

    def __init__(
        self, sequences: Sequence[tuple[int, ...]], device: torch.device, starts: Sequence[int] | None = None
    ) -> None:
        ids: list[int] = []
        positions: list[int] = []
        self.spans: list[tuple[int, int]] = []
        for sequence, start in zip(sequences, starts or [0] * len(sequences), strict=True):
            self.spans.append((len(ids), len(ids) + len(sequence)))
            ids += sequence
            positions += range(start, start + len(sequence))
        fill = [0] * (-len(ids) % ROW_MULTIPLE)
        self.ids = torch.tensor(ids + fill, device=device)
        self.positions = torch.tensor(positions + fill, device=device)
        self.last = torch.tensor([end - 1 for _, end in self.spans], device=device)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, before: list[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """Causal attention of each sequence over itself and over the keys and values `before` it."""
        mixed = torch.zeros_like(q)
        for i, (a, b) in enumerate(self.spans):
            keys, values, mask = k[a:b], v[a:b], None
            if before is not None:
                keys, values = torch.cat((before[i][0], keys)), torch.cat((before[i][1], values))
                prior = len(keys) - (b - a)
                mask = torch.ones(b - a, len(keys), dtype=torch.bool, device=q.device).tril(prior)
            out = attention(
                q[a:b].transpose(0, 1)[None],
                keys.transpose(0, 1)[None],
                values.transpose(0, 1)[None],
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=True,
            )
            mixed[a:b] = out[0].transpose(0, 1)
        return mixed.flatten(1)
