"""vLLM inside this process, behind the contract of the embedded engine. Needs a GPU and the package `vllm`.

Only the public offline interface is used: `LLM.generate` with token-id prompts and explicit `SamplingParams`,
`collective_rpc("reload_weights", kwargs={"weights_path": …})` and `reset_prefix_cache`. It promises less than
the embedded engine: a completion depends on its seed, but on a GPU not bit for bit
(vllm-project/vllm#5898, #7779).

Weights that were reloaded in place have been known to stay the old ones (vllm-project/vllm#32718). So a
reload counts only if canary prompts are answered otherwise than before, and the first reload of an
architecture only if a fresh start with the same weights answers them alike; where it does not, checkpoints
are changed by restarting.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dipscope.engine.base import Completion, Finish, Request, Scored, ScoreRequest
from dipscope.errors import DipscopeError

GROUP = 2048  # requests of one call: results come back when all of them are done
AGREE = 0.05  # nats: mean canary difference that two starts with the same weights may show in bfloat16
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


class VllmEngine:
    """Runs any checkpoint that vLLM knows.

    Args:
        tensor_parallel: GPUs that the model is spread over.
        dtype: of weights and activations, as vLLM names it.
        options: further arguments of `vllm.LLM`, such as `gpu_memory_utilization` or `max_model_len`.

    Attributes:
        weights: content hash of the weights in place.
        swapped: how they were put there.
    """

    def __init__(self, tensor_parallel: int = 1, dtype: str = "bfloat16", **options: Any) -> None:
        try:
            import vllm
        except ImportError as error:
            fix = "Install it on a machine with a GPU, or serve the model and give http://HOST:PORT/v1."
            raise DipscopeError(f"vLLM cannot be imported ({error})", "vllm", fix) from None
        self._vllm, self._dtype = vllm, dtype
        # with "vllm" the model's generation_config.json sets no defaults and adds no stop tokens
        self._options = {**options, "tensor_parallel_size": tensor_parallel, "generation_config": "vllm"}
        self.weights = ""
        self.swapped: Literal["", "start", "reload", "restart"] = ""
        self._llm: Any = None
        self._config: dict[str, Any] = {}
        self._canaries: list[float] = []
        self._reloads: bool | None = None  # whether reloading was found to work; None before it was tried

    @property
    def name(self) -> str:
        """Engine with its version, and numeric format."""
        return f"vllm-{self._vllm.__version__}/{self._dtype}"

    def load(self, checkpoint: Path) -> None:
        """Put a checkpoint in place: reloaded where that is proven to work, by a fresh start elsewhere.

        Raises:
            DipscopeError: the checkpoint is damaged, or vLLM cannot run it (fault).
        """
        from dipscope.weights import weights_hash

        weights = weights_hash(checkpoint)
        if self._llm is not None and weights == self.weights:
            return
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        config = {k: v for k, v in config.items() if k not in _VOLATILE}
        before, running = self._canaries, self._llm is not None
        self.weights, self.swapped = "", "restart" if running else "start"
        reloaded = None
        if config != self._config:
            self._reloads = None
        elif running and self._reloads is not False:
            reloaded = self._reload(checkpoint)
            self._reloads = self._reloads if reloaded not in (None, before) else False
        if self._reloads and reloaded:
            self._canaries, self.swapped = reloaded, "reload"
        else:
            self._start(checkpoint)
            if reloaded and self._reloads is None:
                self._reloads = _mean_difference(self._canaries, reloaded) <= AGREE
        self.weights, self._config = weights, config

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield completions, group by group.

        A prompt that leaves no room in the model's context ends as `error`.

        Raises:
            DipscopeError: no checkpoint is loaded.
        """
        llm, room = self._running(), self._room()
        fitting = [r for r in requests if len(r.prompt_ids) < room]
        yield from (Completion(r.key, (), "error") for r in requests if len(r.prompt_ids) >= room)
        for start in range(0, len(fitting), GROUP):
            group = fitting[start : start + GROUP]
            prompts = [{"prompt_token_ids": list(r.prompt_ids)} for r in group]
            outputs = llm.generate(prompts, [self._parameters(r) for r in group], use_tqdm=False)
            for request, output in zip(group, outputs, strict=True):
                yield _completion(request, output.outputs[0])

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Scored]:
        """Yield token log-probabilities of the given continuations.

        Raises:
            DipscopeError: no checkpoint is loaded, or a request is longer than the model's context.
        """
        llm, room = self._running(), self._room()
        once = self._vllm.SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False, ignore_eos=True
        )
        for start in range(0, len(requests), GROUP):
            group = requests[start : start + GROUP]
            wholes = [[*r.prompt_ids, *r.continuation_ids] for r in group]
            if too_long := next((r for r, w in zip(group, wholes, strict=True) if len(w) >= room), None):
                what = f"prompt and continuation fill the context of {room} tokens"
                raise DipscopeError(what, too_long.key, "Score shorter texts.")
            outputs = llm.generate([{"prompt_token_ids": w} for w in wholes], once, use_tqdm=False)
            for request, whole, output in zip(group, wholes, outputs, strict=True):
                first = len(request.prompt_ids)
                found = (output.prompt_logprobs[i][whole[i]].logprob for i in range(first, len(whole)))
                yield Scored(request.key, tuple(map(float, found)))

    def _parameters(self, request: Request) -> Any:
        """Every parameter that decides the text, none left to a default."""
        drawn = request.sampling
        return self._vllm.SamplingParams(
            n=1,
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            top_k=drawn.top_k or -1,
            min_p=0.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            repetition_penalty=1.0,
            max_tokens=drawn.max_tokens,
            seed=request.seed % 2**63,
            stop_token_ids=list(request.stop_ids),
            ignore_eos=True,  # the request's own stop ids end it, and nothing else does
            detokenize=False,
        )

    def _start(self, checkpoint: Path) -> None:
        self._stop()
        try:
            self._llm = self._vllm.LLM(model=str(checkpoint), dtype=self._dtype, seed=0, **self._options)
        except (RuntimeError, ValueError, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            fix = "See vLLM's own messages above; more GPUs are given with --tensor-parallel."
            raise DipscopeError(
                f"vLLM does not start ({lines[-1]})", str(checkpoint), fix, fault=True
            ) from None
        self._canaries = self._ask_canaries()

    def _stop(self) -> None:
        if self._llm is None:
            return
        core = getattr(self._llm.llm_engine, "engine_core", None)
        if core is not None and hasattr(core, "shutdown"):  # its process holds the GPU until it is collected
            core.shutdown()
        core = self._llm = None
        gc.collect()

    def _reload(self, checkpoint: Path) -> list[float] | None:
        """Canary log-probabilities after a reload, or None when it failed."""
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
            if self._llm.reset_prefix_cache() is False:  # older versions return None
                return None
            return self._ask_canaries()
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError):
            return None

    def _ask_canaries(self) -> list[float]:
        from dipscope.engine.swap import canaries

        vocab = int(self._llm.llm_engine.model_config.get_vocab_size())
        return [p for scored in self.score(canaries(vocab)) for p in scored.logprobs]

    def _room(self) -> int:
        return int(self._llm.llm_engine.model_config.max_model_len)

    def _running(self) -> Any:
        if self._llm is None:
            raise DipscopeError("no checkpoint is loaded", self.name, fault=True)
        return self._llm


def _completion(request: Request, output: Any) -> Completion:
    ids = tuple(output.token_ids)
    finish: Finish = output.finish_reason if output.finish_reason in ("stop", "length") else "error"
    if finish == "stop" and ids and ids[-1] in request.stop_ids:
        ids = ids[:-1]
    return Completion(request.key, ids, finish)


def _mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
