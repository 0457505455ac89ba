"""Teachers by name: which engine or server writes, from what the command line says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dipscope.data.tokenize import opens_thinking, render_prompt, stop_ids
from dipscope.engine.base import Engine, Request, Sampling
from dipscope.engine.text import Ask, Draft, Writer
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import OPEN

GROUP = 2048  # requests that an engine is given at once


class EngineWriter:
    """Writes with an engine of token ids: renders prompts and decodes what comes back.

    Args:
        engine: with the model in place.
        tokenizer: of the model.
        name: who writes, as stored with every response.
        context: positions the model was made for; a response ends there at the latest, with finish `length`.
        facts: what identifies the model.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        name: str,
        context: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.name, self.context = engine, tokenizer, name, context
        self.facts = facts or {"kind": "engine", "engine": engine.name}
        self._stops = stop_ids(tokenizer)

    def write(self, asks: Iterable[Ask]) -> Iterator[Draft]:
        """Yield a draft for every ask. What it says depends on the ask and the weights alone.

        Raises:
            DipscopeError: an ask has min_p, which the engines do not have.
        """
        source = iter(asks)
        while group := list(islice(source, GROUP)):
            yield from self._group(group)

    def _group(self, asks: Sequence[Ask]) -> Iterator[Draft]:
        requests: dict[str, Request] = {}
        rendered: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}
        for ask in asks:
            drawn = ask.sampling
            if drawn.min_p:
                raise without_min_p(self.name)
            if ask.messages not in rendered:
                *before, (_, prompt) = ask.messages
                context = json.dumps([{"role": r, "content": c} for r, c in before]) if before else ""
                rendered[ask.messages] = tuple(render_prompt(self.tokenizer, prompt, context))
            ids = rendered[ask.messages]
            most = drawn.max_tokens
            if self.context is not None:
                most = min(most, self.context - len(ids))
            if most < 1:
                yield Draft(ask.key, "", "error", None, len(ids), "the prompt fills the model's context")
                continue
            sampling = Sampling(drawn.temperature, drawn.top_p, drawn.top_k, most)
            requests[ask.key] = Request(ask.key, ids, sampling, ask.seed, self._stops)
        for done in self.engine.generate(list(requests.values())):
            prompt_ids = requests[done.key].prompt_ids
            sizes = len(done.token_ids), len(prompt_ids)
            if done.finish == "error":
                yield Draft(done.key, "", "error", *sizes, "the engine failed on this request")
                continue
            text = str(self.tokenizer.decode(list(done.token_ids), skip_special_tokens=True))
            if opens_thinking(self.tokenizer, prompt_ids):
                text = f"{OPEN}\n{text}"
            yield Draft(done.key, text, done.finish, *sizes)


def open_writer(
    teachers: Sequence[str],
    find: Callable[[str], Path],
    *,
    min_p: float = 0.0,
    model: str | None = None,
    key_variable: str | None = None,
    opened: bool = False,
    timeout: float = 1800.0,
    in_flight: int = 256,
    tensor_parallel: int = 1,
) -> Writer:
    """The teacher that is named.

    Args:
        teachers: one or several server addresses, or a model's name, with `vllm:` in front where vLLM is to
            run it.
        find: the folder of the model that a name stands for.
        min_p: that will be asked for; refused here where the teacher has none, before anything is loaded.
        model: name of the model on a server.
        key_variable: environment variable that holds a server's API key.
        opened: the server's template opens the thinking without reporting it.
        timeout: seconds for one response of a server.
        in_flight: most requests that one server holds.
        tensor_parallel: GPUs that vLLM spreads the model over.

    Raises:
        DipscopeError: there is no such teacher, or it cannot be opened.
    """
    addresses = [t for t in teachers if t.startswith(("http://", "https://"))]
    if addresses and len(addresses) == len(teachers):
        from dipscope.engine.dispatch import Patience
        from dipscope.engine.server import ServerWriter

        patience = Patience(timeout=timeout, in_flight=in_flight)
        return ServerWriter(addresses, model, key_variable=key_variable, opened=opened, patience=patience)
    if len(teachers) != 1:
        raise DipscopeError(
            "only servers can be several", "teacher", "Name one model, or addresses of servers of one model."
        )
    name = teachers[0]
    if min_p:
        raise without_min_p(name)
    if name.startswith("vllm:"):
        from dipscope.engine.vllm import VllmEngine

        name = name.removeprefix("vllm:")
        folder = find(name)
        engine = VllmEngine(tensor_parallel=tensor_parallel)
        engine.load(folder)
        return _around(engine, folder, f"vllm:{_shown(name)}", engine.weights)
    from dipscope.engine.local import LocalEngine

    folder = find(name)
    local = LocalEngine()
    local.load(folder)
    return _around(local, folder, _shown(name), local.swap_report.weights_hash if local.swap_report else "")


def without_min_p(name: str) -> DipscopeError:
    """The one line for a sampling that the engines of token ids do not offer."""
    fix = "Leave --min-p at 0, or sample from a server."
    return DipscopeError("this teacher samples without min_p", name, fix)


def _around(engine: Engine, folder: Path, name: str, weights: str) -> EngineWriter:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    facts = {"kind": "engine", "engine": engine.name, "weights": weights}
    return EngineWriter(engine, tokenizer, name, config.get("max_position_embeddings"), facts)


def _shown(name: str) -> str:
    """A folder by its own name only: rows must not tell where a machine keeps its models."""
    return Path(name).resolve().name if Path(name).is_dir() else name
