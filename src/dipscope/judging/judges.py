"""Who judges: a server, or a model that runs here, by what the command line says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dipscope.data.teaching.writers import EngineWriter, open_writer
from dipscope.engine.base import Request, Sampling
from dipscope.engine.server import ServerWriter
from dipscope.engine.text import Ask, Draft, Writer


def plain(writer: Writer) -> Writer:
    """The same model without its chat template, for judges trained on a format of their own."""
    if isinstance(writer, ServerWriter):
        return writer.plain()
    if isinstance(writer, EngineWriter):
        return PlainWriter(writer.engine, writer.tokenizer, writer.name, writer.context, writer.facts)
    return writer


class PlainWriter(EngineWriter):
    """Continues prompts as plain text."""

    def _group(self, asks: Sequence[Ask]) -> Iterator[Draft]:
        requests: dict[str, Request] = {}
        for ask in asks:
            ((_, prompt),) = ask.messages
            ids = tuple(
                self.tokenizer(prompt)["input_ids"]
            )  # with the tokens that begin a text for this model
            if self.context is not None and len(ids) + ask.sampling.max_tokens > self.context:
                yield Draft(ask.key, "", "error", None, len(ids), "the prompt fills the model's context")
                continue
            drawn = Sampling(ask.sampling.temperature, ask.sampling.top_p, 0, ask.sampling.max_tokens)
            requests[ask.key] = Request(ask.key, ids, drawn, ask.seed, self._stops)
        for done in self.engine.generate(list(requests.values())):
            text = str(self.tokenizer.decode(list(done.token_ids), skip_special_tokens=True))
            reason = "the engine failed on this request" if done.finish == "error" else ""
            yield Draft(
                done.key, text, done.finish, len(done.token_ids), len(requests[done.key].prompt_ids), reason
            )


def open_judge(
    name: str,
    find: Callable[[str], Path],
    *,
    key_variable: str | None = None,
    timeout: float = 600.0,
    in_flight: int = 64,
) -> Writer:
    """The judge that is named.

    Args:
        name: `http://HOST:PORT/v1#MODEL` (without `#MODEL` the server says which it has), or a model as
            `bases.parse` takes it, with `vllm:` in front where vLLM is to run it.
        find: the folder of the model that a name stands for.
        key_variable: environment variable that holds a server's API key.
        timeout: seconds for one reply of a server.
        in_flight: most requests that the server holds.

    Raises:
        DipscopeError: there is no such judge, or it cannot be opened.
    """
    address, _, model = name.partition("#")
    return open_writer(
        [address],
        find,
        model=model or None,
        key_variable=key_variable,
        timeout=timeout,
        in_flight=in_flight,
    )
