"""Checks before training: does the model get to see where a response ends, and its thinking tags?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipscope.data import template
from dipscope.data.tokenize import Example, opens_thinking, stop_ids
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import CLOSE, OPEN

_DECODED = 64


def preflight(tokenizer: Any, examples: Sequence[Example], traces: Sequence[Trace]) -> list[str]:
    """Refuse data from which a model cannot learn to think and stop; say what else is worth knowing.

    Args:
        tokenizer: the tokenizer that made the examples.
        examples: the rows.
        traces: what they were made from, in the same order.

    Returns:
        Notes for the reader: rows and tokens, rows cut, unknown tokens, responses that do not come back from
        the tokenizer as they were, what the chat template does, the end of the first target.

    Raises:
        DipscopeError: a target is empty, every row is cut, a row that is not cut does not end with the
            end-of-turn token, a thinking tag does not survive the tokenizer, or the chat template's
            generation prompt has closed the thinking already.
    """
    for example, trace in zip(examples, traces, strict=True):
        if not example.target_ids:
            raise DipscopeError(
                "nothing is left of the response", f"trace {trace.id}", "Raise max_length or drop the trace."
            )
    whole = [(e, t) for e, t in zip(examples, traces, strict=True) if not e.cut]
    if not whole and any(t.finish != "length" for t in traces):
        raise DipscopeError(
            "every row is cut, so no row shows the model how to stop", "dataset", "Raise max_length."
        )
    stop = stop_ids(tokenizer)
    for example, trace in whole:
        if example.target_ids[-1] not in stop:
            last = tokenizer.decode([example.target_ids[-1]])
            raise DipscopeError(
                f"the target ends with '{last}' and not with the end of a turn",
                f"trace {trace.id}",
                "Tokenize with dipscope.data.tokenize.render and a tokenizer whose EOS ends a turn.",
            )
    thinking = [(e, t) for e, t in whole if OPEN in t.response or CLOSE in t.response]
    if thinking and template.closes_thinking(tokenizer):
        raise DipscopeError(
            "the chat template's generation prompt closes an empty thinking block, and the traces think",
            "chat_template",
            "Give the model chat_template = 'chatml' or a Jinja file of its own.",
        )
    _tags_survive(tokenizer, thinking)
    return _notes(tokenizer, examples, whole)


def _tags_survive(tokenizer: Any, thinking: Sequence[tuple[Example, Trace]]) -> None:
    for example, trace in thinking[:_DECODED]:
        text = tokenizer.decode(example.target_ids, skip_special_tokens=False)
        opened = opens_thinking(tokenizer, example.prompt_ids) and trace.response.lstrip().startswith(OPEN)
        for tag, given in ((OPEN, int(opened)), (CLOSE, 0)):
            if text.count(tag) + given != trace.response.count(tag):
                raise DipscopeError(
                    f"{tag} does not survive the tokenizer",
                    f"trace {trace.id}",
                    "Use a tokenizer that knows the tag or can spell it.",
                )


def _notes(tokenizer: Any, examples: Sequence[Example], whole: Sequence[tuple[Example, Trace]]) -> list[str]:
    tokens = sum(len(e.target_ids) for e in examples)
    notes = [f"{len(examples)} rows, {tokens} supervised tokens"]
    cut = sum(e.cut for e in examples)
    if cut:
        notes.append(f"{cut} of {len(examples)} rows are cut and do not show how to stop")
    unknown = tokenizer.unk_token_id
    if unknown is not None and (missed := sum(e.target_ids.count(unknown) for e in examples)):
        notes.append(f"{missed} of {tokens} target tokens are unknown to the tokenizer")
    looked = whole[:_DECODED]
    changed = sum(
        not t.response.endswith(tokenizer.decode(e.target_ids[:-1], skip_special_tokens=False))
        for e, t in looked
    )
    if changed:
        notes.append(f"{changed} of {len(looked)} responses come back changed from the tokenizer")
    if not whole:
        return [*notes, *template.notes(tokenizer), "no row shows the model how to stop"]
    end = tokenizer.decode(whole[0][0].target_ids[-5:], skip_special_tokens=False)
    return [*notes, *template.notes(tokenizer), f"the first whole target ends with: {end}"]
