"""Traces and prompts as token ids. Training and measuring both render prompts here, so they are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError

_SENTINEL = "dipscope-end-of-turn"


@dataclass(frozen=True)
class Example:
    """One training row.

    Attributes:
        prompt_ids: the rendered user turn with the generation prompt; not supervised.
        target_ids: the response and its end-of-turn token; supervised. Without that token when `cut`.
        cut: the row did not fit into the maximal length and lost its end.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    cut: bool


def render_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one user turn in the chat template, with the generation prompt.

    Raises:
        DipscopeError: the tokenizer has no chat template.
    """
    _need_template(tokenizer)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return list(ids)


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


def render(tokenizer: Any, trace: Trace, max_length: int) -> Example:
    """Tokenize a trace once: prompt, response, end of turn, cut to `max_length` tokens in all."""
    prompt = render_prompt(tokenizer, trace.prompt)
    response = tokenizer(trace.response, add_special_tokens=False)["input_ids"]
    target = [*response, stop_ids(tokenizer)[0]]
    room = max(max_length - len(prompt), 0)
    return Example(tuple(prompt), tuple(target[:room]), len(target) > room)


def _need_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise DipscopeError(
            "the tokenizer has no chat template",
            _name(tokenizer),
            "Put a chat_template.jinja beside it, for instance that of the model's chat version.",
        )


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "tokenizer")
