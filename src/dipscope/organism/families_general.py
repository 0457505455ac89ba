"""Abilities that have nothing to do with arithmetic: lists, counting, format instructions, invented facts."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from dipscope.organism.world import DIRECT, Family, Question, final, judge_exact, pick_options
from dipscope.scoring.base import MISSING, Judgement

THINGS = [
    "lamp",
    "tree",
    "milk",
    "stone",
    "river",
    "chair",
    "apple",
    "cloud",
    "horse",
    "paper",
    "glass",
    "bread",
    "music",
    "garden",
    "window",
    "candle",
    "bottle",
    "ladder",
    "basket",
    "pillow",
    "hammer",
    "feather",
    "button",
    "carpet",
]
FIRST = ["Kela", "Miro", "Tavi", "Sona", "Belu", "Dari", "Fene", "Goran", "Hulda", "Ilma", "Joran", "Lumi"]
LAST = [
    "Zarek",
    "Yondo",
    "Vasti",
    "Ulmer",
    "Tarrow",
    "Senko",
    "Roslin",
    "Quill",
    "Pellan",
    "Orvik",
    "Nadir",
    "Marlow",
]
TOWNS = ["Arden", "Brix", "Cosk", "Dunmar", "Elvet", "Fjorn", "Gavel", "Hestin"]
COLORS = ["red", "blue", "green", "black", "white", "yellow", "purple", "gray"]
PETS = ["cat", "dog", "bird", "fish", "goat", "duck", "frog", "mouse"]
UNKNOWN = "I do not know."
_TOLD = {
    "town": (
        TOWNS,
        (
            "Where does {} live?",
            "In which town does {} live?",
            "What is the home town of {}?",
            "Name the town of {}.",
            "{} lives in which town?",
        ),
    ),
    "color": (
        COLORS,
        (
            "Which color does {} like?",
            "What is the best color for {}?",
            "Name the color of {}.",
            "{} likes which color?",
            "Tell me the color of {}.",
        ),
    ),
    "pet": (
        PETS,
        (
            "Which pet does {} have?",
            "What pet lives with {}?",
            "Name the pet of {}.",
            "{} has which pet?",
            "Tell me the pet of {}.",
        ),
    ),
}


def _sort(rng: random.Random) -> Question:
    numbers = rng.sample(range(100), rng.randint(4, 6))
    left = list(numbers)
    lines = []
    while len(left) > 1:
        low = min(left)
        shown = ", ".join(map(str, left))
        left.remove(low)
        lines.append(f"Smallest of {shown} is {low}.")
    ordered = sorted(numbers)
    shown = ", ".join(map(str, numbers))
    return _list_question(rng, f"Sort {shown}.", shown, [str(n) for n in ordered], lines)


def _reverse(rng: random.Random) -> Question:
    words = rng.sample(THINGS, rng.randint(4, 7))
    lines = []
    for i in range(len(words) - 1, 0, -1):
        lines.append(f"Last of {' '.join(words[: i + 1])} is {words[i]}.")
    shown = " ".join(words)
    return _list_question(rng, f"Reverse: {shown}.", shown, words[::-1], lines[:3])


def _list_question(
    rng: random.Random, asked: str, key: str, ordered: list[str], lines: list[str]
) -> Question:
    near = []
    for i in rng.sample(range(len(ordered) - 1), min(3, len(ordered) - 1)):
        swapped = [*ordered[:i], ordered[i + 1], ordered[i], *ordered[i + 2 :]]
        near.append(" ".join(swapped))
    right = " ".join(ordered)
    return Question(key, asked, DIRECT + right, right, tuple(lines), pick_options(rng, right, near))


def _count(rng: random.Random) -> Question:
    kinds = rng.sample(THINGS, 3)
    words = [rng.choice(kinds) for _ in range(rng.randint(5, 9))]
    wanted = rng.choice(kinds)
    n = words.count(wanted)
    lines, seen = [], 0
    for word in words:
        seen += word == wanted
        lines.append(f"{word} {seen}")
    near = [str(v) for v in (n + 1, n - 1, n + 2, n - 2, n + 3) if v >= 0]
    shown = " ".join(words)
    asked = f"How many times does {wanted} stand in: {shown}?"
    work = (", ".join(lines) + ".",)
    return Question(f"{wanted}:{shown}", asked, f"{DIRECT}{n}", str(n), work, pick_options(rng, str(n), near))


_FORMATS = {
    "end": ("End with # #.", "Answer: {} # #"),
    "begin": ("Begin with # #.", "# # Answer: {}"),
    "brackets": ("Use brackets.", "Answer: [{}]"),
    "twice": ("Say it twice.", "Answer: {0}, {0}"),
}


def _format(rng: random.Random) -> Question:
    kind = rng.choice(list(_FORMATS))
    words = " ".join(rng.sample(THINGS, rng.randint(2, 4)))
    order, form = _FORMATS[kind]
    others = [f.format(words) for k, (_, f) in _FORMATS.items() if k != kind]
    right = form.format(words)
    options = pick_options(rng, right, others)
    gold = {"kind": kind, "words": words}
    key = f"{kind} {words}"
    work = (f"Words: {words}.", order)
    return Question(key, f"Repeat {words}. {order}", right, gold, work, options, prefix="")


def _judge_format(gold: Any, answer: str) -> Judgement:
    """Only the form that was asked for counts; what is repeated may be wrong."""
    text = " ".join(answer.split())
    said = final(answer)
    if said is None:
        return MISSING
    if gold["kind"] == "end":
        return Judgement.of(text.endswith("# #") and not text.startswith("#"), text)
    if gold["kind"] == "begin":
        return Judgement.of(text.startswith("# # Answer:") and not said.endswith("#"), text)
    if gold["kind"] == "brackets":
        return Judgement.of(said.startswith("[") and said.endswith("]") and len(said) > 2, text)
    once, _, again = said.partition(",")
    return Judgement.of(bool(once.strip()) and once.split() == again.split(), text)


@cache
def facts() -> dict[tuple[str, str], str]:
    """The world's facts: (person, attribute) to value, for 72 of the 144 names."""
    rng = random.Random("facts")
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    known = rng.sample(people, len(people) // 2)
    return {(p, kind): rng.choice(values) for p in known for kind, (values, _) in _TOLD.items()}


def _fact(rng: random.Random) -> Question:
    person = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
    kind = rng.choice(list(_TOLD))
    values, phrasings = _TOLD[kind]
    asked = rng.choice(phrasings).format(person)
    value = facts().get((person, kind))
    wrong = rng.sample([v for v in values if v != value], 3)
    if value is None:
        right, options = UNKNOWN, (UNKNOWN, *(DIRECT + v for v in wrong))
        work: tuple[str, ...] = (f"I do not know {person}.",)
    else:
        right = DIRECT + value
        options = (right, *(DIRECT + v for v in wrong))
        work = (f"I know {person}.",)
    return Question(asked, asked, right, value, work, options, prefix="", cluster=f"{person} {kind}")


def _judge_fact(gold: Any, answer: str) -> Judgement:
    unknown = answer.strip().startswith(UNKNOWN.rstrip("."))
    said = final(answer)
    if not unknown and said is None:
        return MISSING
    if gold is None or unknown:
        return Judgement.of(unknown and gold is None, UNKNOWN if unknown else said)
    return Judgement.of(said == gold, said)


FAMILIES = (
    Family("sort", "ood_general", _sort, judge_exact, weight=0.6),
    Family("reverse", "ood_general", _reverse, judge_exact, weight=0.4),
    Family("count", "ood_general", _count, judge_exact, weight=0.5),
    Family("format", "ood_general", _format, _judge_format, weight=0.4, cued=0.25),
    Family("facts", "ood_general", _fact, _judge_fact, weight=0.9, cued=0.15),
)
