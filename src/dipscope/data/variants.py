"""Variants of a trace table on matched queries: what of a reasoning trace is learned from?"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from dipscope.data import countdown
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import CLOSE, OPEN, split
from dipscope.study import Variant

_ANSWER_LINE = re.compile(r"^.*(?:Answer:|\\boxed\{).*$", re.MULTILINE)


def apply(variant: Variant, trace: Trace, rng: random.Random) -> Trace:
    """The same query with another response.

    Args:
        variant: `cot` leaves the trace as it is; `no_cot` removes the thinking block and keeps the final
            summary; `answer_only` keeps the line with the answer; `shuffled_steps` puts the lines of the
            thinking block in random order; `wrong_answer` ends in an answer that the checker rejects.
        trace: as the teacher wrote it.
        rng: used by the last two.

    Raises:
        DipscopeError: the trace does not have what the variant changes.
    """
    if variant == "cot":
        return trace
    if variant == "shuffled_steps":
        return replace(trace, response=_shuffled(trace, rng))
    if variant == "wrong_answer":
        return replace(trace, response=_wrong(trace, rng), verdict="wrong")
    answer = split(trace.response).answer.strip()
    if not answer:
        raise DipscopeError(
            "the response has no answer after its thinking", trace.id, "Leave the row out, or keep 'cot'."
        )
    if variant == "no_cot":
        return replace(trace, response=answer)
    lines = _ANSWER_LINE.findall(answer)
    return replace(trace, response=lines[-1] if lines else answer.splitlines()[-1])


def _shuffled(trace: Trace, rng: random.Random) -> str:
    before, opened, rest = trace.response.partition(OPEN)
    thinking, closed, after = rest.rpartition(CLOSE)
    if not opened or not closed:
        raise DipscopeError("the response has no closed thinking block to shuffle", trace.id, "Use 'cot'.")
    steps = [line for line in thinking.split("\n") if line.strip()]
    rng.shuffle(steps)
    inner = "\n".join(steps)
    return f"{before}{OPEN}\n{inner}\n{CLOSE}{after}"


def _wrong(trace: Trace, rng: random.Random) -> str:
    """The thinking stays; summary and answer are those of a near miss."""
    try:
        problem = countdown.Problem.from_gold(trace.gold)
    except (ValueError, TypeError, KeyError):
        fix = "It exists for countdown, whose gold answer names numbers and target."
        raise DipscopeError("wrong_answer cannot be made from this trace", trace.id, fix) from None
    ((first, expression),) = countdown.near_misses(problem.numbers, problem.target, 1, rng)
    head, closed, _ = trace.response.rpartition(CLOSE)
    response = f"{head}{closed}\n{countdown.summary(first)}\nAnswer: {expression}".lstrip("\n")
    if countdown.verify(problem, response).verdict != "wrong":
        raise DipscopeError("the checker accepts what should be a wrong answer", trace.id, fault=True)
    return response
