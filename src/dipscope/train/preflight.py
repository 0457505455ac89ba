"""Checks before training: does the model get to see where a response ends, and its thinking tags?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipscope.data.tokenize import Example, stop_ids
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
        Notes for the reader: rows and tokens, rows cut, unknown tokens, the end of the first target.

    Raises:
        DipscopeError: a target is empty, every row is cut, a row that is not cut does not end with the
            end-of-turn token, or a thinking tag does not survive the tokenizer.
    """
    for example, trace in zip(examples, traces, strict=True):
        if not example.target_ids:
            raise DipscopeError(
                "nothing is left of the response", f"trace {trace.id}", "Raise max_length or drop the trace."
            )
    whole = [(e, t) for e, t in zip(examples, traces, strict=True) if not e.cut]
    if not whole:
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
    _tags_survive(tokenizer, [(e, t) for e, t in whole if OPEN in t.response or CLOSE in t.response])
    return _notes(tokenizer, examples, whole[0][0])


def _tags_survive(tokenizer: Any, thinking: Sequence[tuple[Example, Trace]]) -> None:
    for example, trace in thinking[:_DECODED]:
        text = tokenizer.decode(example.target_ids, skip_special_tokens=False)
        for tag in (OPEN, CLOSE):
            if text.count(tag) != trace.response.count(tag):
                raise DipscopeError(
                    f"{tag} does not survive the tokenizer",
                    f"trace {trace.id}",
                    "Use a tokenizer that knows the tag or can spell it.",
                )


def _notes(tokenizer: Any, examples: Sequence[Example], shown: Example) -> list[str]:
    tokens = sum(len(e.target_ids) for e in examples)
    notes = [f"{len(examples)} rows, {tokens} supervised tokens"]
    cut = sum(e.cut for e in examples)
    if cut:
        notes.append(f"{cut} of {len(examples)} rows are cut at max_length and do not show how to stop")
    unknown = tokenizer.unk_token_id
    if unknown is not None and (missed := sum(e.target_ids.count(unknown) for e in examples)):
        notes.append(f"{missed} of {tokens} target tokens are unknown to the tokenizer")
    end = tokenizer.decode(shown.target_ids[-5:], skip_special_tokens=False)
    return [*notes, f"the first whole target ends with: {end}"]
