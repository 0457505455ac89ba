r"""Mathematics with a final answer: `paper/math500`, `paper/aime24`, `public/aime25`, `public/gsm8k`.

`strict` compares the answer that follows the thinking with the gold answer (docs/verification.md). `paper`
gives math-verify the whole response and the whole published solution. The likelihood twin, for golds that are
a short number, sets the gold beside near misses with about as many digits, behind `\boxed{`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from dipscope.benchmarks.items import Defaults, Source, field, item_id
from dipscope.benchmarks.published import REQUEST, Published
from dipscope.data.shaping import near_misses
from dipscope.scoring import latex, numbers, verifiers, verify, whole
from dipscope.scoring.answers import final_answer, last_box
from dipscope.scoring.base import MISSING, Benchmark, Domain, Item, Judgement
from dipscope.scoring.thinking import Response

SHORT = 16  # characters of a gold that has a likelihood twin
OTHERS = 3  # near misses beside it
PREFIX = r"The final answer is \boxed{"


class Mathematics(Published):
    """Problems whose gold is a number, a formula or a word."""

    domain: Domain = "in_domain"

    def __init__(self, path: Path | None = None, protocol: str = "strict") -> None:
        self.rule = whole.VERSION if protocol == "paper" else verify.VERSION
        super().__init__(path, protocol)

    def item(self, row: dict[str, Any]) -> Item:
        """From `problem`, `answer` and, for the paper's protocol, `solution` where there is one."""
        answer = str(field(row, "answer", self.source))
        solution = row.get("solution") if self.protocol == "paper" else None
        return self.made(str(field(row, "problem", self.source)), answer, str(solution or answer))

    def made(self, problem: str, answer: str, gold: str) -> Item:
        """An item that asks for a box."""
        # The paper's prompts have a space before the request, which its training data do not have.
        prompt = f"{problem}\n{' ' if self.protocol == 'paper' else ''}{REQUEST}"
        key = item_id(problem, answer)
        options = tuple(f"{said}}}" for said in twin(answer, key))
        return Item(key, prompt, gold, options=options, answer_prefix=PREFIX if options else "")

    def judge(self, item: Item, response: Response) -> Judgement:
        """Verified in a process that can be killed; the time of a verdict is bounded."""
        if self.protocol == "paper":
            (judged,) = verifiers.shared("whole").judge([(item.gold, response.text)])
            box = last_box(response.text)
            # What math-verify cannot finish counts as wrong in the paper, so it must not leave the mean here.
            return (
                Judgement("missing", 0.0, box)
                if judged.verdict == "error"
                else replace(judged, extracted=box)
            )
        said = final_answer(response.answer) if response.closed else None
        if said is None:
            return MISSING
        (judged,) = verifiers.shared().judge([(item.gold, said)])
        return judged


def twin(gold: str, key: str) -> tuple[str, ...]:
    """A short numeric gold and its near misses, all different numbers; empty where there are none.

    Args:
        gold: the gold answer.
        key: decides which near misses are taken.
    """
    wanted = _value(gold)
    if wanted is None or len(gold) > SHORT:
        return ()

    def others() -> Iterator[str]:
        seen = {wanted}
        for near in near_misses.candidates(gold, gold, "", random.Random(key)):
            value = _value(near)
            if value is not None and value not in seen:
                seen.add(value)
                yield near

    found = tuple(islice(others(), OTHERS))
    return (gold, *found) if found else ()


def _value(text: str) -> Any:
    found = numbers.number(latex.clean(text))
    return found.value if found else None


class Math500(Mathematics):
    """500 problems of MATH (arXiv 2103.03874), as PRM800K chose them (arXiv 2305.20050)."""

    name = "paper/math500"
    source = Source(
        "HuggingFaceH4/MATH-500",
        "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        "test.jsonl",
        "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        licence="MIT (PRM800K); MATH's own not checked",
    )
    size = 500
    defaults = Defaults(items=500, samples=3, temperature=0.6, top_p=0.95)


class AIME24(Mathematics):
    """The 30 problems of AIME 2024; answers are integers from 0 to 999."""

    name = "paper/aime24"
    source = Source(
        "HuggingFaceH4/aime_2024",
        "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        "data/train-00000-of-00001.parquet",
        None,
        licence="none stated; problems by the MAA",
    )
    size = 30
    defaults = Defaults(items=30, samples=10, temperature=0.6, top_p=0.95)


class AIME25(Mathematics):
    """The 30 problems of AIME 2025."""

    name = "public/aime25"
    source = Source(
        "math-ai/aime25",
        "563bb8404243c5f09de6ec262f2db674fe5bce9b",
        "test.jsonl",
        None,
        licence="Apache-2.0; problems by the MAA",
    )
    size = 30
    defaults = Defaults(items=30, samples=10, temperature=0.6, top_p=0.95)


class GSM8K(Mathematics):
    """Grade-school word problems (arXiv 2110.14168). A solution ends in `#### ` and the answer."""

    name = "public/gsm8k"
    source = Source(
        "openai/gsm8k",
        "740312add88f781978c0658806c59bc2815b9866",
        "main/test-00000-of-00001.parquet",
        "ee7b8da9e381df27b9e3f7758a159ab2bdaa4dbaa910546cbbc47e0cb44e4f59",
        licence="MIT",
    )
    size = 1319
    defaults = Defaults(items=1319, samples=1, temperature=0.6, top_p=0.95)

    def item(self, row: dict[str, Any]) -> Item:
        """From `question` and `answer`."""
        answer = str(field(row, "answer", self.source)).rpartition("####")[2].strip().replace(",", "")
        return self.made(str(field(row, "question", self.source)), answer, answer)


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {b.name: b for b in (Math500, AIME24, AIME25, GSM8K)}
