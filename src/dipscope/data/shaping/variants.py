"""Variants of a trace table on matched queries: what of a reasoning trace is learned from?"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from dipscope.data import countdown
from dipscope.data.shaping import near_misses, reflection, steps
from dipscope.data.shaping.near_misses import Judge
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.answers import final_answer, last_box
from dipscope.scoring.thinking import MARKS, split
from dipscope.study import Variant

VARIANTS: tuple[Variant, ...] = get_args(Variant)
DROPPED = 0.3  # share of the steps that `dropped_steps` takes out
KEPT = 0.3  # share of the steps that `short_cot` keeps at the end
KEPT_LEAST = 2

_BOX = re.compile(r"\\+(?:boxed|fbox)(?![a-zA-Z])")
_MARKER = re.compile(r"Answer:|(?:final answer is\b|answer\**[ \t]?:)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?][\"')\]*_]*[ \t]+")


def apply(variant: Variant, trace: Trace, rng: random.Random, judge: Judge | None = None) -> Trace:
    r"""The same query with another response. Query, prompt, gold and all else that is not named stay.

    `cot`
        the trace as it is; so is `unverified`, which differs in how it is chosen from a pool (see `build`).
    `no_cot`
        without the thinking block: the final summary with its answer.
    `answer_only`
        of that, the sentence or formula with the last box; without a box the line with `Answer:`, else the
        last line.
    `wrong_answer`
        the thinking stays, the final answer becomes a near miss that the judge finds wrong. For Countdown's
        symbolic teacher the summary changes with it.
    `shuffled_steps`
        the steps of the thinking (`steps.segment`) in random order.
    `dropped_steps`
        `DROPPED` of the steps taken out at random, at least one and never all.
    `truncated`
        the thinking ends after a random number of its steps and is left open, without any answer, as where a
        length limit cut it: finish `length`, verdict `missing`. (The closed counterpart, which answers after
        incomplete thinking, is `dropped_steps`.)
    `stripped_keywords`
        the thinking without words of reflection (`reflection.strip`).
    `short_cot`
        the first step, which says what is asked, and the last `KEPT` of the steps, at least `KEPT_LEAST`,
        which lead to the answer: in between lie the attempts. Of a symbolic Countdown trace of up to four
        branches this leaves the one that works and its check.

    Args:
        variant: one of the above.
        trace: as the teacher wrote it.
        rng: draws orders, steps and near misses.
        judge: says of (gold, answer) whether it is right; `verify.verify` in this process by default.

    Raises:
        DipscopeError: the trace does not have what the variant changes.
    """
    if variant in ("cot", "unverified"):
        return trace
    if variant in ("no_cot", "answer_only"):
        answer = _answer(trace)
        return replace(trace, response=answer if variant == "no_cot" else _bare(answer))
    if variant == "wrong_answer":
        return replace(trace, response=_wrong(trace, rng, judge), verdict="wrong")
    head, thinking, tail = _parts(trace)
    made = _BLOCKS[variant](trace, thinking, rng)
    if variant == "truncated":
        return replace(trace, response=head + made, verdict="missing", finish="length")
    return replace(trace, response=head + made + tail)


def token_matched(
    tables: Mapping[str, Sequence[Trace]], tokens: Callable[[Trace], int], budget: int | None = None
) -> dict[str, list[Trace]]:
    """Variants with equal supervised tokens instead of equal rows.

    Of each table the first rows are kept whose tokens sum to at most the budget, up to the first row that
    does not fit. What is left of the budget is therefore less than that one row; a table that is smaller
    than the budget is kept whole. Rows stay in their order, so the tables still begin with the same queries.

    Args:
        tables: rows by variant, in seeded order.
        tokens: supervised tokens of a row.
        budget: tokens of each table; by default those of the smallest.
    """
    lengths = {name: [tokens(trace) for trace in table] for name, table in tables.items()}
    left = min((sum(each) for each in lengths.values()), default=0) if budget is None else budget
    return {name: list(table[: fitting(lengths[name], left)]) for name, table in tables.items()}


def fitting(lengths: Sequence[int], budget: int) -> int:
    """How many first rows of these lengths fit into a budget."""
    for row, length in enumerate(lengths):
        budget -= length
        if budget < 0:
            return row
    return len(lengths)


def _answer(trace: Trace) -> str:
    found = split(trace.response)
    answer = found.answer.strip()
    if not answer:
        why = "after its thinking" if found.closed else "because its thinking is never closed"
        raise _refused(f"the response has no answer {why}", trace)
    return answer


def _bare(answer: str) -> str:
    """The part of an answer that states it."""
    masked, final = steps.mask(answer), final_answer(answer)
    for box in [m.start() for m in _BOX.finditer(answer)][::-1]:
        # A box outside formula marks may run over lines, or hold what looks like the end of a sentence.
        for start, end in _around(masked, box):
            if final_answer(answer[start:end]) == final:
                return answer[start:end].strip()
    if markers := [m.start() for m in _MARKER.finditer(answer)]:
        for start, end in _lines_around(masked, markers[-1]):
            if final_answer(answer[start:end]) == final:
                return answer[start:end].strip("\n")
    return answer.splitlines()[-1]


def _around(masked: str, at: int) -> Iterator[tuple[int, int]]:
    """The sentence at a position, then its line, then the line with more and more lines after it."""
    start, end = next(_lines_around(masked, at))
    ends = [m.end() for m in _SENTENCE_END.finditer(masked, start, end)]
    yield max((e for e in ends if e <= at), default=start), min((e for e in ends if e > at), default=end)
    yield from _lines_around(masked, at)


def _lines_around(masked: str, at: int) -> Iterator[tuple[int, int]]:
    start, end = masked.rfind("\n", 0, at) + 1, at
    while end < len(masked):
        end = masked.find("\n", end + 1)
        end = end if end >= 0 else len(masked)
        yield start, end


def _parts(trace: Trace) -> tuple[str, str, str]:
    """Up to and with the opening mark; the thinking; the closing mark and the rest."""
    for opening, closing in MARKS:
        inner, closed, rest = trace.response.rpartition(closing)
        if closed:
            before, opened, thinking = inner.partition(opening)
            if opened and thinking.strip():
                return before + opened, thinking, closed + rest
    raise _refused("the response has no closed thinking block with something in it", trace)


def _shuffled(trace: Trace, thinking: str, rng: random.Random) -> str:
    lead, bodies, gaps = _bodies(thinking)
    order = list(range(len(bodies)))
    rng.shuffle(order)
    # Each step keeps the space after it; the one that comes last swaps it for that of the old last one.
    after = [gaps[i] for i in order]
    after[order.index(len(order) - 1)], after[-1] = after[-1], gaps[-1]
    return lead + "".join(bodies[i] + gap for i, gap in zip(order, after, strict=True))


def _dropped(trace: Trace, thinking: str, rng: random.Random) -> str:
    lead, bodies, gaps = _bodies(thinking)
    number = min(max(1, round(DROPPED * len(bodies))), len(bodies) - 1)
    if not number:
        raise _refused("the thinking is a single step, of which none can be dropped", trace)
    dropped = set(rng.sample(range(len(bodies)), number))
    pairs = [pair for i, pair in enumerate(zip(bodies, gaps, strict=True)) if i not in dropped]
    return lead + _joined(pairs, gaps[-1])


def _truncated(trace: Trace, thinking: str, rng: random.Random) -> str:
    found = steps.segment(thinking)
    if len(found) < 2:
        raise _refused("the thinking is a single step, which cannot be cut short", trace)
    return "".join(found[: rng.randint(1, len(found) - 1)]).rstrip()


def _stripped(trace: Trace, thinking: str, rng: random.Random) -> str:
    kept = reflection.strip(thinking)
    if not kept.strip():
        raise _refused("the thinking holds nothing but words of reflection", trace)
    return kept


def _short(trace: Trace, thinking: str, rng: random.Random) -> str:
    lead, bodies, gaps = _bodies(thinking)
    last = max(KEPT_LEAST, -int(-KEPT * len(bodies) // 1))
    first = min(1, len(bodies) - last)
    pairs = list(zip(bodies, gaps, strict=True))
    return lead + _joined(pairs if first < 1 else [pairs[0], *pairs[-last:]], gaps[-1])


_BLOCKS: dict[str, Callable[[Trace, str, random.Random], str]] = {
    "shuffled_steps": _shuffled,
    "dropped_steps": _dropped,
    "truncated": _truncated,
    "stripped_keywords": _stripped,
    "short_cot": _short,
}


def _bodies(thinking: str) -> tuple[str, list[str], list[str]]:
    """The space before the first step; the steps without the space after them; that space."""
    found = steps.segment(thinking)
    lead = found[0][: len(found[0]) - len(found[0].lstrip("\n"))]
    found[0] = found[0][len(lead) :]
    bodies = [step.rstrip() for step in found]
    return lead, bodies, [step[len(body) :] for step, body in zip(found, bodies, strict=True)]


def _joined(pairs: Sequence[tuple[str, str]], last_gap: str) -> str:
    return "".join(body + gap for body, gap in pairs[:-1]) + pairs[-1][0] + last_gap


def _wrong(trace: Trace, rng: random.Random, judge: Judge | None) -> str:
    """The thinking stays; the answer is that of a near miss."""
    said = final_answer(trace.response)
    if said is None or not trace.gold:
        raise _refused(f"wrong_answer needs {'an answer' if trace.gold else 'a gold answer'}", trace)
    begins = len(trace.response) - len(_after_thinking(trace.response))
    if (made := _wrong_countdown(trace, begins, rng)) is not None:
        return made
    if judge is None:
        from dipscope.scoring.verify import verify

        judge = verify
    for candidate in near_misses.first(trace.gold, said, trace.prompt, rng):
        response = near_misses.replaced(trace.response, said, candidate, begins)
        if response and judge(trace.gold, candidate).verdict == "wrong":
            return response
    raise _refused("wrong_answer knows no near miss of the answer", trace)


def _after_thinking(response: str) -> str:
    for _, closing in MARKS:
        if closing in response:
            return response.rpartition(closing)[2]
    return response


def _wrong_countdown(trace: Trace, begins: int, rng: random.Random) -> str | None:
    """In the words of the symbolic teacher; None for a trace that is not in them."""
    try:
        problem = countdown.Problem.from_gold(trace.gold)
    except (ValueError, TypeError, KeyError):
        return None
    if last_box(trace.response[begins:]) is not None:
        return None
    misses = countdown.near_misses(problem.numbers, problem.target, 1, rng)
    if not misses:
        raise _refused("every expression of the problem reaches its target", trace)
    ((first, expression),) = misses
    response = f"{trace.response[:begins]}\n{countdown.summary(first)}\nAnswer: {expression}".lstrip("\n")
    if countdown.verify(problem, response).verdict != "wrong":
        raise DipscopeError("the checker accepts what should be a wrong answer", trace.id, fault=True)
    return response


def _refused(what: str, trace: Trace) -> DipscopeError:
    return DipscopeError(what, trace.id, "Leave the row out, or keep 'cot'.")
