"""Self-replay: generic prompts answered by the base model itself, to be mixed into the training rows."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dipscope.data.tokenize import render_prompt, stop_ids
from dipscope.data.traces import Trace
from dipscope.engine.base import Engine, Request, Sampling
from dipscope.errors import DipscopeError

Report = Callable[[int, int, str], None] | None

TEMPERATURE, CAP = 0.7, 160
ATTEMPTS = 8  # prompts asked for each trace wanted, before it is given up

_TOPICS = (
    "bees", "a lighthouse", "old maps", "volcanoes", "a bakery", "penguins", "chess", "a desert", "glass",
    "a violin", "recycling", "a sailing boat", "mushrooms", "clouds", "a museum", "whales", "paper", "hiking",
    "a wedding", "honey", "an island", "soap", "a theatre", "windmills", "dinosaurs", "a harbor", "knitting",
    "a comet", "pottery", "a waterfall", "trains in the mountains", "owls", "a vineyard", "photography",
)  # fmt: skip
_TEMPLATES = (
    "Tell me something about {topic}.",
    "Write a short poem about {topic}.",
    "Why do people like {topic}?",
    "Explain {topic} to a child.",
    "Give me three tips about {topic}.",
    "What should I know about {topic}?",
    "Write a title for a story about {topic}.",
    "Name some things that go well with {topic}.",
    "Make a short list of ideas for a class on {topic}.",
    "Write one line of dialogue about {topic}.",
    "Describe {topic} briefly.",
    "Which adjective fits {topic}? Answer with one adjective.",
)
_NUMERIC = (
    "I was born in {year}. Which decade is that?",
    "Round {big} to the nearest hundred.",
    "Write the number {small} in words.",
    "Which is larger, {big} or {year}?",
    "Is {small} an even number?",
    "My train leaves at {hour}:{minute}. How should I say that time?",
    "Double {small}.",
    "What comes right after {big}?",
    "A film lasts {minutes} minutes. Is that longer than an hour?",
    "How many minutes are in {hour} hours?",
    "What is half of {even}?",
    "My bill is {small} dollars and I pay with {even} dollars. What happens next?",
    "Read this date aloud: {hour}/{day}/{year}.",
    "Tell me a fact about the number {small}.",
    "Count from {small} to {next}.",
    "Take {few} away from {small}.",
)


def general_prompts(seed: int) -> list[str]:
    """Prompts for a pretrained model, in an order drawn by `seed`: topics, and a third of them with digits.

    No benchmark asks any of these. Numbers stand in questions of other forms than those that are measured,
    so that digits alone do not come to mean the training task.
    """
    rng = random.Random(f"replay {seed}")
    worded = [template.format(topic=topic) for template in _TEMPLATES for topic in _TOPICS]
    numeric = {template.format(**_numbers(rng)) for template in _NUMERIC for _ in range(13)}
    prompts = sorted({*worded, *numeric})
    rng.shuffle(prompts)
    return prompts


def _numbers(rng: random.Random) -> dict[str, str]:
    small = rng.randint(11, 95)
    return {
        "year": str(rng.randint(1900, 2020)),
        "big": str(rng.randint(120, 9800)),
        "small": str(small),
        "next": str(small + rng.randint(3, 5)),
        "hour": str(rng.randint(2, 11)),
        "minute": str(rng.randint(10, 59)),
        "minutes": str(rng.randint(31, 170)),
        "even": str(2 * rng.randint(48, 90)),
        "day": str(rng.randint(1, 28)),
        "few": str(rng.randint(2, 9)),
    }


@dataclass(frozen=True)
class Answered:
    """What came of asking a model generic prompts.

    Attributes:
        traces: the answers that are kept.
        asked: prompts that were asked.
        cut: answers that did not end within the cap.
        empty: answers that ended without a word.
        spare: proper answers that were more than wanted.
    """

    traces: tuple[Trace, ...]
    asked: int
    cut: int
    empty: int
    spare: int


def replay(
    engine: Engine,
    tokenizer: Any,
    n: int,
    seed: int,
    prompts: Iterable[str],
    report: Report = None,
    *,
    temperature: float = TEMPERATURE,
    max_tokens: int = CAP,
) -> list[Trace]:
    """The answers of `ask` alone: see there."""
    made = ask(engine, tokenizer, n, seed, prompts, report, temperature=temperature, max_tokens=max_tokens)
    return list(made.traces)


def ask(
    engine: Engine,
    tokenizer: Any,
    n: int,
    seed: int,
    prompts: Iterable[str],
    report: Report = None,
    *,
    temperature: float = TEMPERATURE,
    max_tokens: int = CAP,
) -> Answered:
    """Have the model that `engine` holds answer prompts until `n` of its answers ended by themselves.

    Answers that were cut at the cap are dropped: learning from them would teach not to end. The prompts are
    asked in their order, again from the start with other random numbers when they run out. The result
    depends on the seed and the weights only, not on the order in which answers arrive.

    Args:
        engine: with the base model in place.
        tokenizer: of that model.
        n: traces wanted.
        seed: decides the random numbers of every answer.
        prompts: user turns; an endless iterator will do.
        report: called with traces kept, traces wanted and a note.
        temperature: of the sampling.
        max_tokens: cap on an answer.

    Raises:
        DipscopeError: after 8 prompts for each trace wanted there are still too few.
    """
    stops = stop_ids(tokenizer)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    asked, kept = 0, list[Trace]()
    dropped: Counter[str] = Counter()
    endless = _turns(prompts)
    while len(kept) < n:
        # The share of answers that end is unknown at first: ask for what is missing and half as much again.
        wave = min((n - len(kept)) * 3 // 2 + 1, ATTEMPTS * n - asked)
        if wave <= 0:
            raise DipscopeError(
                f"only {len(kept)} of {n} replay answers ended within {max_tokens} tokens",
                "replay",
                "Ask for fewer (in a study: a smaller share of replay), or write a table with a higher "
                "--max-tokens by data replay and mix that.",
            )
        requests, turns = [], {}
        for _ in range(wave):
            prompt, turn = next(endless)
            key = f"replay-{asked}"
            drawn = int(_hash(f"{seed}\t{turn}\t{prompt}"), 16)
            requests.append(Request(key, tuple(render_prompt(tokenizer, prompt)), sampling, drawn, stops))
            turns[key] = prompt
            asked += 1
        done, ended = {}, 0
        for completion in engine.generate(requests):
            done[completion.key] = completion
            ended += completion.finish == "stop"
            if report:
                cut = dropped["cut"] + len(done) - ended
                report(min(len(kept) + ended, n), n, f"answers of the base{f', {cut} cut' if cut else ''}")
        for key, prompt in turns.items():
            answer = done[key]
            text = str(tokenizer.decode(list(answer.token_ids), skip_special_tokens=True))
            if answer.finish != "stop":
                dropped["cut"] += 1
            elif not text.strip():
                dropped["empty"] += 1
            else:
                query = f"replay-{_hash(prompt)}"
                kept.append(Trace(key, query, prompt, text, origin="replay", finish="stop"))
    return Answered(tuple(kept[:n]), asked, dropped["cut"], dropped["empty"], max(0, len(kept) - n))


def _turns(prompts: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each prompt with the number of times it was asked before, over and over."""
    seen: Counter[str] = Counter()
    for prompt in itertools.cycle(prompts):
        yield prompt, seen[prompt]
        seen[prompt] += 1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
