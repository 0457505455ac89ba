"""What a chat template does beyond putting turns in a row: found by rendering probes, said with the fix."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from dipscope.data.tokenize import opens_thinking, render_prompt, stop_ids
from dipscope.scoring.thinking import CLOSE, OPEN

_A, _B, _C, _THOUGHT = "dipscope-first", "dipscope-second", "dipscope-third", "dipscope-thought"
OWN_TEMPLATE = "give the model chat_template = 'chatml' or a Jinja file of its own to change that"


def default_system(tokenizer: Any) -> str:
    """What the template puts in front of a conversation that has no system message; empty if nothing.

    The user's header is what stands alike before the first and before a later user turn; what is left in
    front of it, the beginning-of-text token aside, was injected.
    """
    first = _text(tokenizer, ("user", _A)).partition(_A)[0].removeprefix(tokenizer.bos_token or "")
    later = _text(tokenizer, ("user", _A), ("assistant", _B), ("user", _C)).partition(_B)[2].partition(_C)[0]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(first), reversed(later), strict=False))
    return first[: len(first) - sum(1 for _ in alike)].strip()


def keeps_thinking(tokenizer: Any) -> bool:
    """Whether the thinking of earlier assistant turns is still there when a later turn is rendered."""
    answer = f"{OPEN}\n{_THOUGHT}\n{CLOSE}\n\n{_B}"
    return _THOUGHT in _text(tokenizer, ("user", _A), ("assistant", answer), ("user", _C))


def closes_thinking(tokenizer: Any) -> bool:
    """Whether the generation prompt ends in an empty, closed thinking block, which forbids thinking."""
    return _prompt(tokenizer).rstrip().endswith(CLOSE)


def notes(tokenizer: Any) -> list[str]:
    """What a reader of the run should know about the tokenizer's template, a sentence each."""
    found = []
    if system := default_system(tokenizer):
        shown = " ".join(system.split())
        shown = shown if len(shown) < 120 else f"{shown[:117]}…"
        found.append(f"the template puts a system prompt before every conversation ({shown}): {OWN_TEMPLATE}")
    if not keeps_thinking(tokenizer):
        found.append(f"the template drops the thinking of earlier turns: {OWN_TEMPLATE}")
    if opens_thinking(tokenizer, render_prompt(tokenizer, "x")):
        found.append(f"the template opens the thinking itself, so targets begin after their {OPEN}")
    stop, eos = stop_ids(tokenizer)[0], tokenizer.eos_token_id
    if stop != eos:
        ends = tokenizer.convert_ids_to_tokens([stop])[0]
        found.append(f"responses end with {ends}, which is not the tokenizer's EOS ({tokenizer.eos_token})")
    elif not _text(tokenizer, ("user", _A), ("assistant", _B)).rstrip().endswith(tokenizer.eos_token):
        found.append(
            f"the template ends no assistant turn: responses end with the EOS, {tokenizer.eos_token}"
        )
    return found


def _text(tokenizer: Any, *turns: tuple[str, str]) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _prompt(tokenizer: Any) -> str:
    messages = [{"role": "user", "content": _A}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
