"""Trace tables of countdown: problems, the teacher's traces, the checker's verdicts, and what they show."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dipscope import __version__
from dipscope.data.countdown.options import Options
from dipscope.data.countdown.problems import stream, too_few
from dipscope.data.countdown.prompts import prompt, shown_numbers
from dipscope.data.countdown.teacher import respond
from dipscope.data.traces import Trace
from dipscope.scoring.countdown.check import verify
from dipscope.scoring.countdown.problem import Problem, Split

FORMAT = 1


def traces(
    rows: int,
    seed: int,
    options: Mapping[str, Any] | Options | None = None,
    *,
    split: Split = "train",
    answered: bool = True,
    report: Callable[[int, int, str], None] | None = None,
) -> list[Trace]:
    """Verified search traces of distinct problems.

    Args:
        rows: how many.
        seed: decides problems and traces.
        options: an `Options`, or a study's table for `Options.of`.
        split: the split that the problems belong to.
        answered: False leaves the responses empty, for another teacher to write them.
        report: called with traces made, traces wanted and a note.

    Raises:
        DipscopeError: unknown options, or fewer problems than rows.
    """
    chosen = options if isinstance(options, Options) else Options.of(options or {})
    made: list[Trace] = []
    problems = stream(split, seed, chosen)
    while len(made) < rows:
        problem = next(problems, None)
        if problem is None:
            raise too_few(len(made), rows, split, chosen)
        made.append(_trace(problem, seed, chosen, answered))
        if report:
            report(len(made), rows, "countdown traces")
    return made


def _trace(problem: Problem, seed: int, options: Options, answered: bool) -> Trace:
    rng = random.Random(f"trace {seed} {problem.key}")
    asked = prompt(problem, rng, options.prompt_style)
    name = f"countdown-{problem.key}"
    if not answered:
        return Trace(name, name, asked, "", problem.gold, "")
    response = respond(shown_numbers(asked), problem.target, rng, None, options)
    return Trace(name, name, asked, response, problem.gold, "teacher", verify(problem, response).verdict)


def summary(
    made: Sequence[Trace], options: Options, split: Split, seed: int, answered: bool
) -> dict[str, Any]:
    """What a table is, for its provenance: how it was made, what it holds and what its traces show."""
    problems = [Problem.from_gold(trace.gold) for trace in made]
    numbers = Counter(len(problem.numbers) for problem in problems)
    verdicts = Counter(trace.verdict or "unanswered" for trace in made)
    words = {"prompt": _words(t.prompt for t in made), "response": _words(t.response for t in made)}
    return {
        **request(len(made), options, split, seed, answered),
        "counts": {
            "numbers": {str(n): numbers[n] for n in sorted(numbers)},
            "verdicts": dict(sorted(verdicts.items())),
        },
        "words": words,
        "rates": rates(trace.response for trace in made) if answered else None,
    }


def request(rows: int, options: Options, split: Split, seed: int, answered: bool) -> dict[str, Any]:
    """What the bytes of a table follow from."""
    return {
        "format": FORMAT,
        "dipscope": __version__,
        "source": "countdown",
        "rows": rows,
        "split": split,
        "seed": seed,
        "answered": answered,
        "options": options.as_dict(),
    }


def _words(texts: Iterable[str]) -> int:
    """Words, numbers and signs in all."""
    return sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)


def rates(responses: Iterable[str]) -> dict[str, float]:
    """What traces of this teacher show, by counting their lines.

    Returns:
        `backtracking`: mean number of failed branches; `verification`: checks per branch; `subgoals`: aims
        per branch; 0 where there is no trace.
    """
    rows = tried = checked = aimed = 0
    for response in responses:
        rows += 1
        tried += len(re.findall(r"^Try ", response, re.MULTILINE))
        checked += len(re.findall(r"^Check: ", response, re.MULTILINE))
        aimed += len(re.findall(r"^Need ", response, re.MULTILINE))
    return {
        "backtracking": (tried - rows) / max(rows, 1),
        "verification": checked / max(tried, 1),
        "subgoals": aimed / max(tried, 1),
    }
