"""What a benchmark is: items in a domain and a verdict for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dipscope.scoring.thinking import Response

Domain = Literal["in_domain", "ood_reasoning", "ood_general", "safety"]
DOMAINS: tuple[Domain, ...] = ("in_domain", "ood_reasoning", "ood_general", "safety")
Verdict = Literal["correct", "wrong", "error", "missing"]
Split = Literal["test", "dev"]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique inside its benchmark and stable across versions of dipscope.
        prompt: the user turn, without chat template.
        gold: what the verdict is reached from; anything JSON can hold.
        cluster: items that share a cluster are not independent (same template, same passage); empty means
            that the item stands alone.
        options: for the likelihood probe: candidate answers, the right one first. Empty: no such probe.
        answer_prefix: text that is put between prompt and option when the likelihood is asked.
    """

    id: str
    prompt: str
    gold: Any
    cluster: str = ""
    options: tuple[str, ...] = ()
    answer_prefix: str = ""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one response, with what was read out of it.

    `missing` means that there was nothing to judge: no answer in the expected form. `error` means that
    the scorer itself failed; it is never counted as wrong. `score` in [0, 1] where a grade is graded.
    """

    verdict: Verdict
    score: float | None = None
    extracted: str | None = None

    @classmethod
    def of(cls, correct: bool, extracted: str | None = None) -> Judgement:
        """Correct or wrong, score 1 or 0."""
        return cls("correct" if correct else "wrong", float(correct), extracted)


MISSING = Judgement("missing", 0.0, None)
UNJUDGED = Judgement("error")  # the scorer did not fail: a verdict is for `dipscope judge` to give


class Benchmark(Protocol):
    """A named set of items in one domain with its own verdict."""

    name: str
    domain: Domain
    scorer: str  # name and version of the scoring rule; a change of rule changes the version
    max_tokens: int  # the default cap on a response

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` items of a split, the same at every call and on every machine."""
        ...

    def judge(self, item: Item, response: Response) -> Judgement:
        """The verdict on one response. Pure: no clock, no network, no randomness."""
        ...
