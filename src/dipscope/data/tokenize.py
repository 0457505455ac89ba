"""Traces and prompts as token ids. Training and measuring both render prompts here, so they are the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import OPEN
from dipscope.workspace import write_atomic

_SENTINEL = "dipscope-end-of-turn"


@dataclass(frozen=True)
class Example:
    """One training row.

    Attributes:
        prompt_ids: the rendered user turn with the generation prompt; not supervised.
        target_ids: the response and its end-of-turn token; supervised. Without that token when `cut`.
        cut: the row did not fit into the maximal length and lost its end, or never had one.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    cut: bool


class TokenTable(Sequence[Example]):
    """Tokenized rows in flat arrays of 4 bytes a token; a row becomes Python numbers when it is asked for.

    Attributes:
        ids: (n,) int32, the rows one after the other, each its prompt and then its target.
        starts: (rows + 1,) where each row begins in `ids`.
        targets: (rows,) where each row's target begins in `ids`.
        cut: (rows,) whether a row lost its end.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        starts: NDArray[np.int64],
        targets: NDArray[np.int64],
        cut: NDArray[np.bool_],
    ) -> None:
        self.ids, self.starts, self.targets, self.cut = ids, starts, targets, cut

    @classmethod
    def of(cls, examples: Iterable[Example]) -> TokenTable:
        """The table of some rows."""
        parts, prompts, lengths, cut = [], [], [], []
        for example in examples:
            parts.append(np.array(example.prompt_ids + example.target_ids, np.int32))
            prompts.append(len(example.prompt_ids))
            lengths.append(len(parts[-1]))
            cut.append(example.cut)
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(ids, starts, starts[:-1] + np.array(prompts, np.int64), np.array(cut, np.bool_))

    def __len__(self) -> int:
        return len(self.targets)

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> list[Example]: ...
    def __getitem__(self, row: int | slice) -> Example | list[Example]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        start, target, end = self.starts[row], self.targets[row], self.starts[row + 1]
        return Example(
            tuple(self.ids[start:target].tolist()), tuple(self.ids[target:end].tolist()), bool(self.cut[row])
        )

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors, whole or not at all."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {
            "ids": self.ids,
            "starts": self.starts,
            "targets": self.targets,
            "cut": self.cut,
        }
        write_atomic(path, save(arrays))

    @classmethod
    def read(cls, path: Path) -> TokenTable:
        """The inverse of `write`."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))


def render_prompt(tokenizer: Any, prompt: str, context: str = "") -> list[int]:
    """Token ids of one user turn in the chat template, with the generation prompt.

    Args:
        tokenizer: with a chat template.
        prompt: the user turn.
        context: the turns before it, as in `Trace`.

    Raises:
        DipscopeError: the tokenizer has no chat template.
    """
    _need_template(tokenizer)
    turns = [*(json.loads(context) if context else []), {"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def opens_thinking(tokenizer: Any, prompt_ids: Sequence[int]) -> bool:
    """Whether a rendered prompt ends in an opening mark: the template opens the thinking block itself."""
    text = str(tokenizer.decode(list(prompt_ids[-8:]), skip_special_tokens=False))
    return text.rstrip().endswith(OPEN)


def stop_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a response; the first is the one that training appends.

    That is the token which the chat template puts after an assistant turn (`<|im_end|>` in ChatML), and the
    tokenizer's EOS where the template has none. A base model's EOS often differs from it, so both stop.

    Raises:
        DipscopeError: there is no chat template, or neither the template nor the tokenizer ends a turn.
    """
    _need_template(tokenizer)
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _SENTINEL}]
    tail = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_SENTINEL)[2].strip()
    found: list[int] = []
    if tail:
        first = int(tokenizer(tail, add_special_tokens=False)["input_ids"][0])
        if first in tokenizer.all_special_ids or first in tokenizer.added_tokens_decoder:
            found.append(first)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in found:
        found.append(int(tokenizer.eos_token_id))
    if not found:
        raise DipscopeError(
            "no token ends a turn", _name(tokenizer), "Set eos_token, or end the turn in the chat template."
        )
    return tuple(found)


def render(tokenizer: Any, trace: Trace, max_length: int = sys.maxsize) -> Example:
    """Tokenize a trace once: prompt, response, end of turn, cut to `max_length` tokens in all.

    Where the template's generation prompt opens the thinking block itself, the response's own opening mark
    is left out, so that the model learns to go on from where it will be asked to.
    """
    prompt = render_prompt(tokenizer, trace.prompt, trace.context)
    text = trace.response
    if text.lstrip().startswith(OPEN) and opens_thinking(tokenizer, prompt):
        text = text.lstrip().removeprefix(OPEN).removeprefix("\n")
    response = tokenizer(text, add_special_tokens=False)["input_ids"]
    unfinished = trace.finish == "length"  # its end is not the writer's, and is not taught
    target = response if unfinished else [*response, stop_ids(tokenizer)[0]]
    room = max(max_length - len(prompt), 0)
    return Example(tuple(prompt), tuple(target[:room]), unfinished or len(target) > room)


def _need_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise DipscopeError(
            "the tokenizer has no chat template",
            _name(tokenizer),
            "Put a chat_template.jinja beside it, for instance that of the model's chat version.",
        )


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "tokenizer")
