"""What training will see of a trace table: rendered rows, counted and shown before anything is trained."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dipscope.data.tokenize import Example, render, stop_ids
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import CLOSE, OPEN
from dipscope.train.preflight import preflight

SAMPLE = 256  # rows that the preflight reads and whose tags are decoded
_SHOWN = 48  # tokens shown at the start and at the end of a row


@dataclass(frozen=True)
class Targets:
    """What the chat template and the length limit make of the rows.

    Attributes:
        rows: traces.
        max_length: tokens a row may have, prompt included.
        prompt_tokens: tokens of the rendered prompts; masked, no loss is taken on them.
        target_tokens: tokens that are learned.
        longest: tokens of the longest row as it is trained on.
        cut: rows that lose their end.
        empty: rows of whose response nothing is left.
        ended: rows whose last learned token ends a turn.
        end: that token.
        thinking: sampled rows that have a thinking tag and are not cut.
        kept: those of them whose tags come back from the tokenizer as they were, the opening tag aside where
            the prompt has it.
        notes: what the preflight says of a sample of the rows.
        refusal: why the preflight refuses the sample; empty where it does not.
        row: id of the row that is shown.
        begins: its first tokens, decoded, prompt included.
        ends: its last tokens, decoded.
    """

    rows: int
    max_length: int
    prompt_tokens: int
    target_tokens: int
    longest: int
    cut: int
    empty: int
    ended: int
    end: str
    thinking: int
    kept: int
    notes: tuple[str, ...]
    refusal: str
    row: str
    begins: str
    ends: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def inspect(
    tokenizer: Any,
    traces: Iterable[Trace],
    max_length: int,
    report: Callable[[int, int, str], None] | None = None,
) -> Targets:
    """Render every row as training does and say what becomes of it, in bounded memory.

    Rows are counted all; preflight and tags look at a sample of 256 rows that does not depend on their order.

    Args:
        tokenizer: of the model that will be trained.
        traces: the rows.
        max_length: tokens a row may have.
        report: called with rows done, 0 and a note.

    Raises:
        DipscopeError: there are no rows, or the tokenizer has no chat template or no end of turn.
    """
    stops = stop_ids(tokenizer)
    rows = prompt = target = longest = cut = empty = ended = 0
    sample: list[tuple[int, int, Example, Trace]] = []
    for rows, trace in enumerate(traces, 1):
        example = render(tokenizer, trace, max_length)
        prompt += len(example.prompt_ids)
        target += len(example.target_ids)
        longest = max(longest, len(example.prompt_ids) + len(example.target_ids))
        cut += example.cut
        empty += not example.target_ids
        ended += bool(example.target_ids) and example.target_ids[-1] in stops
        digest = hashlib.blake2b(trace.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        entry = (-int.from_bytes(digest), -rows, example, trace)
        if len(sample) < SAMPLE:
            heapq.heappush(sample, entry)
        elif entry > sample[0]:
            heapq.heapreplace(sample, entry)
        if report:
            report(rows, 0, "rows rendered")
    if not rows:
        raise DipscopeError("there are no rows", "data check")
    chosen = [(example, trace) for _, _, example, trace in sorted(sample, key=lambda e: -e[1])]
    notes, refusal = _preflight(tokenizer, chosen)
    thinking = [(e, t) for e, t in chosen if not e.cut and (OPEN in t.response or CLOSE in t.response)]
    shown, owner = next(((e, t) for e, t in chosen if not e.cut), chosen[0])
    ids = (*shown.prompt_ids, *shown.target_ids)
    return Targets(
        rows=rows,
        max_length=max_length,
        prompt_tokens=prompt,
        target_tokens=target,
        longest=longest,
        cut=cut,
        empty=empty,
        ended=ended,
        end=str(tokenizer.decode([stops[0]], skip_special_tokens=False)),
        thinking=len(thinking),
        kept=sum(_kept(tokenizer, e, t) for e, t in thinking),
        notes=notes,
        refusal=refusal,
        row=owner.id,
        begins=str(tokenizer.decode(list(ids[:_SHOWN]), skip_special_tokens=False)),
        ends=str(tokenizer.decode(list(ids[-_SHOWN:]), skip_special_tokens=False)),
    )


def _preflight(tokenizer: Any, chosen: list[tuple[Example, Trace]]) -> tuple[tuple[str, ...], str]:
    try:
        return tuple(preflight(tokenizer, [e for e, _ in chosen], [t for _, t in chosen])), ""
    except DipscopeError as error:
        return (), str(error)


def _kept(tokenizer: Any, example: Example, trace: Trace) -> bool:
    """Whether the tags are in the row; a template that opens the thinking has moved one into the prompt."""
    text = tokenizer.decode(list(example.target_ids), skip_special_tokens=False)
    whole = tokenizer.decode(list(example.prompt_ids[-8:]), skip_special_tokens=False) + text
    closes = text.count(CLOSE) == trace.response.count(CLOSE)
    return bool(closes and whole.count(OPEN) >= trace.response.count(OPEN))
