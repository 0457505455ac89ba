"""Instructions whose keeping a program can check, in the spirit of IFEval, for small models.

Every check reads the answer verbatim; only white space at its two ends is ignored.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TOPICS = (
    "the sea", "a cat", "the moon", "a garden", "winter", "a train", "coffee", "a library", "the rain",
    "a horse", "music", "a mountain", "bread", "a school", "the forest", "a bicycle", "summer", "a river",
    "a birthday", "the sky", "a market", "football", "a robot", "the beach", "a castle", "tea", "a farmer",
    "the city", "a dream", "a kitchen",
)  # fmt: skip
THINGS = (
    "fruits", "colors", "animals", "countries", "sports", "vegetables", "jobs", "musical instruments",
    "kinds of weather", "things in a kitchen", "birds", "school subjects", "pieces of clothing", "toys",
    "things in a park", "drinks",
)  # fmt: skip
WORDS = (
    "bright", "slowly", "window", "friend", "silver", "morning", "quiet", "together", "always", "green",
    "journey", "simple", "warm", "secret", "happy", "small",
)  # fmt: skip
ENDINGS = ("That is all.", "The end.", "Thank you.", "I hope this helps.", "See you soon.", "Good luck.")
STARTS = ("Today", "Once", "Every", "Sometimes", "Imagine", "Nobody", "When", "Perhaps")
_NUMBERED = re.compile(r"^\s*(\d+)[.)]\s+\S")


@dataclass(frozen=True)
class Rule:
    """A kind of instruction: how it is asked, from what, and when it is kept.

    Attributes:
        ask: the prompt; `{topic}` and `{value}` are filled in.
        values: what `{value}` is drawn from.
        topics: what `{topic}` is drawn from.
        check: whether an answer (stripped) keeps it, given the value.
    """

    ask: str
    check: Callable[[str, Any], bool]
    values: tuple[Any, ...] = ("",)
    topics: tuple[str, ...] = TOPICS


def sentences(text: str) -> int:
    """Number of sentences: stretches of words that end in `.`, `!`, `?` or with the text."""
    return sum(1 for s in re.split(r"[.!?]+[\"')\]]*(?:\s+|$)", text) if re.search(r"\w", s))


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[a-z0-9]+(?:['’-][a-z0-9]+)*", text.lower())


def _numbered(text: str, n: int) -> bool:
    found = [int(m.group(1)) for line in text.splitlines() if (m := _NUMBERED.match(line))]
    return found == list(range(1, n + 1))


def _quoted(text: str, _: Any) -> bool:
    return len(text) > 2 and text[0] in '"“' and text[-1] in '"”' and not re.search(r'["“”]', text[1:-1])


RULES: dict[str, Rule] = {
    "include": Rule(
        'Write one sentence about {topic}. Include the word "{value}".', lambda t, v: v in words(t), WORDS
    ),
    "avoid": Rule(
        'Write one sentence about {topic}. Do not use the word "{value}".',
        lambda t, v: bool(words(t)) and v not in words(t),
        ("and", "a", "it", "of", "to"),
    ),
    "no_commas": Rule(
        "Write two sentences about {topic}. Do not use any commas.",
        lambda t, _: bool(words(t)) and "," not in t,
    ),
    "lower_case": Rule(
        "Write one sentence about {topic}. Use only lower-case letters.",
        lambda t, _: bool(words(t)) and t == t.lower(),
    ),
    "capitals": Rule(
        "Write one sentence about {topic}. USE ONLY CAPITAL LETTERS.",
        lambda t, _: bool(words(t)) and t == t.upper(),
    ),
    "numbered": Rule(
        "Give me a numbered list of exactly {value} {topic}.", _numbered, (2, 3, 4, 5, 6), THINGS
    ),
    "ending": Rule(
        'Write one sentence about {topic}. End your answer with: "{value}"',
        lambda t, v: t.rstrip('"”').endswith(v),
        ENDINGS,
    ),
    "start": Rule(
        'Write one sentence about {topic}. Start with the word "{value}".',
        lambda t, v: words(t)[:1] == [v.lower()],
        STARTS,
    ),
    "quotes": Rule("Write one sentence about {topic}. Put your whole answer in double quotes.", _quoted),
    "sentences": Rule(
        "Write exactly {value} sentences about {topic}.", lambda t, v: sentences(t) == v, (2, 3, 4)
    ),
    "short": Rule(
        "Describe {topic} in at most {value} words.", lambda t, v: 0 < len(words(t)) <= v, (12, 16, 20, 24)
    ),
    "question": Rule(
        "Ask me one question about {topic}. Write only the question.",
        lambda t, _: t.rstrip('"”').endswith("?") and sentences(t) == 1,
    ),
}


def draw(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A prompt and what is needed to check it."""
    kind = rng.choice(list(RULES))
    rule = RULES[kind]
    value = rng.choice(rule.values)
    return rule.ask.format(topic=rng.choice(rule.topics), value=value), {"kind": kind, "value": value}


def keeps(gold: dict[str, Any], answer: str) -> bool:
    """Whether an answer keeps the instruction that `gold` describes."""
    return RULES[gold["kind"]].check(answer.strip(), gold["value"])
