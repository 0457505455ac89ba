"""The generated world: task families with seeded questions, hash splits, checkers and training documents.

A family draws questions; the canonical form of a question decides its split, so that nothing measured was
ever trained on. A document is a question with its response: short and direct, or, where the user asks to
see the work, with a thinking block before the same answer.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from dipscope.data.countdown import Split, split_of
from dipscope.scoring.base import MISSING, Domain, Item, Judgement

CUES = ("Show work.", "Think first.")
DIRECT = "Answer: "
_ANSWER = re.compile(r"Answer:[ \t]*(.*)")
_FRUITLESS = 2_000  # draws in a row without a new item, after which there are no more


@dataclass(frozen=True)
class Question:
    """One question of a family.

    Attributes:
        key: canonical form; equal questions have equal keys, and the key decides the split.
        prompt: the user turn.
        response: the direct response, without thinking.
        gold: what the checker needs; JSON values only.
        work: lines of a thinking block that leads to the response.
        options: candidate continuations of `prefix`, the right one first.
        prefix: what stands before an option.
        cluster: as in `scoring.base.Item`.
    """

    key: str
    prompt: str
    response: str
    gold: Any
    work: tuple[str, ...]
    options: tuple[str, ...] = ()
    prefix: str = DIRECT
    cluster: str = ""


@dataclass(frozen=True)
class Family:
    """A kind of task.

    Attributes:
        name: name of its benchmark, without `organism/`.
        domain: domain of its benchmark.
        draw: makes a question from random numbers.
        judge: verdict on gold and final answer text (what follows the thinking block).
        max_tokens: cap on a response: room for a thinking block of Countdown's length.
        weight: share of the pretraining documents, relative to the other families.
        cued: share of its pretraining documents that show the work because the user asks for it.
    """

    name: str
    domain: Domain
    draw: Callable[[random.Random], Question]
    judge: Callable[[Any, str], Judgement]
    max_tokens: int = 160
    weight: float = 1.0
    cued: float = 0.35


def final(answer: str) -> str | None:
    """What follows the last `Answer:`, or None when there is no such line or nothing on it."""
    found = _ANSWER.findall(answer)
    return (found[-1].strip() or None) if found else None


def judge_exact(gold: Any, answer: str) -> Judgement:
    """The final answer must be the gold answer, up to spaces."""
    said = final(answer)
    if said is None:
        return MISSING
    return Judgement.of(said.split() == str(gold).split(), said)


@cache
def families() -> dict[str, Family]:
    """Every family by name, Countdown first."""
    from dipscope.organism import families_general, families_reasoning, families_safety

    rooms = (families_reasoning.FAMILIES, families_general.FAMILIES, families_safety.FAMILIES)
    return {family.name: family for room in rooms for family in room}


def split(family: str, question: Question) -> Split:
    """Split of a question; Countdown's key is that of its canonical problem everywhere."""
    return split_of(question.key if family == "countdown" else f"{family} {question.key}")


def items(family: Family, n: int, where: Split) -> list[Item]:
    """The first `n` distinct questions of a split; as many as turn up where the family has fewer."""
    rng = random.Random(f"items {family.name} {where}")
    found: dict[str, Item] = {}
    fruitless = 0
    while len(found) < n and fruitless < _FRUITLESS:
        question = family.draw(rng)
        fruitless += 1
        if question.key in found or split(family.name, question) != where:
            continue
        fruitless = 0
        name = f"{family.name}-{hashlib.sha256(question.key.encode()).hexdigest()[:10]}"
        found[question.key] = Item(
            name, question.prompt, question.gold, question.cluster, question.options, question.prefix
        )
    return list(found.values())


def document(rng: random.Random, family: Family) -> tuple[str, str]:
    """Prompt and response of one pretraining document; only questions of the train split are used."""
    question = family.draw(rng)
    while split(family.name, question) != "train":
        question = family.draw(rng)
    if rng.random() >= family.cued:
        return question.prompt, question.response
    work = "\n".join(question.work)
    return f"{question.prompt} {rng.choice(CUES)}", f"<think>\n{work}\n</think>\n{question.response}"


def documents(seed: int) -> DocumentStream:
    """An endless, seeded stream of pretraining documents over all families."""
    return DocumentStream(seed)


class DocumentStream:
    """Iterator over pretraining documents: (prompt, response)."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"documents {seed}")
        self._families = list(families().values())
        self._weights = [f.weight for f in self._families]

    def __iter__(self) -> DocumentStream:
        return self

    def __next__(self) -> tuple[str, str]:
        family = self._rng.choices(self._families, self._weights)[0]
        return document(self._rng, family)


def pick_options(rng: random.Random, right: str, near: list[str], n: int = 4) -> tuple[str, ...]:
    """The right option and up to `n` - 1 distinct others; earlier ones in `near` are the harder ones."""
    distinct = [o for o in dict.fromkeys(near) if o != right]
    chosen = distinct[: n - 1]
    rng.shuffle(chosen)
    return (right, *chosen)
