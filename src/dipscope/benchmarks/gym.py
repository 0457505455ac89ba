"""Any generator of reasoning-gym as a benchmark with its own verifier: `gym/<name>?option=value&…`."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from dipscope.benchmarks import gym_worker
from dipscope.errors import DipscopeError
from dipscope.scoring.answers import last_box
from dipscope.scoring.base import MISSING, Benchmark, Domain, Item, Judgement, Split
from dipscope.scoring.process import Kept
from dipscope.scoring.thinking import Response

SEED, SIZE = 20_000_000, 20_000
LONGEST = 4000  # characters of an answer that is worth scoring
PATIENCE = 20.0  # seconds for one verdict; the slowest verifiers take milliseconds
# As short as can be: longer statements of the form make SmolLM2-135M talk about the form instead.
FORM = "Write your answer after 'Answer:'."
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def get(name: str, domain: Domain = "ood_reasoning") -> Benchmark:
    """The benchmark of a generator.

    Args:
        name: the generator's name, and after `?` any of its options, as in
            `countdown?min_numbers=3&max_numbers=3`. Lists are written with commas.
        domain: the domain its results belong to.

    Raises:
        DipscopeError: there is no such generator or option, or a value does not fit.
    """
    generator, _, query = name.partition("?")
    config = _config(generator, query, f"gym/{name}")
    return GymBenchmark(f"gym/{name}", domain, generator, config)


@dataclass
class GymBenchmark:
    """One generator with its options.

    The splits are told apart by the hash of the question, so they never share one, however few questions
    the options leave. A verifier's partial credit is not kept: each generator means something else by it,
    and some give it for the form alone.
    """

    name: str
    domain: Domain
    generator: str
    config: dict[str, Any]
    scorer: str = f"gym/1+reasoning-gym-{version('reasoning-gym')}"
    max_tokens: int = 512

    @cached_property
    def _dataset(self) -> Any:
        return _create(self.name, self.generator, self.config, SIZE)

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` distinct questions of a split; fewer when the options do not leave as many."""
        found: dict[str, Item] = {}
        for index in range(min(SIZE, 20 * n + 200)):
            if len(found) == n:
                break
            entry = self._dataset[index]
            question = str(entry["question"]).strip()
            key = hashlib.sha256(question.encode()).hexdigest()
            if key in found or (int(key[:8], 16) % 3 == 0) != (split == "dev"):
                continue
            gold = {"index": index, "answer": str(entry["answer"])}
            found[key] = Item(key[:16], f"{question}\n\n{FORM}", gold)
        return list(found.values())

    def judge(self, item: Item, response: Response) -> Judgement:
        """The verifier's verdict on the extracted answer; only full credit is correct."""
        said = extract(response.answer, item.gold["answer"]) if response.closed else None
        if said is None:
            return MISSING
        if len(said) > LONGEST:
            return Judgement.of(False, said[:LONGEST])
        reply = _worker.ask(
            {"name": self.generator, "config": self.config, "seed": SEED, "size": SIZE,
             "index": item.gold["index"], "answer": said}
        )  # fmt: skip
        if "error" in reply:
            return Judgement("error", None, said)
        return Judgement.of(reply["score"] > 0.99, said)


def extract(text: str, gold: str) -> str | None:
    """The final answer: after the last `Answer:`, in the last answer tags or box, in this order.

    Where a number is wanted and none of these is there, the last number of the text is the answer.

    Args:
        text: what follows the thinking block.
        gold: a right answer, whose form (a number, one line, several lines) the extraction goes by.
    """
    _, marker, after = text.rpartition("Answer:")
    if marker:
        after = after.removeprefix("**").strip()
        said = after if "\n" in gold else after.partition("\n")[0]
    elif tagged := _TAGGED.findall(text):
        said = tagged[-1]
    else:
        said = last_box(text) or ""
    said = said.strip().strip("*`$").strip()
    if not said and not marker and _NUMBER.fullmatch(gold):
        said = (_NUMBER.findall(text) or [""])[-1]
    return said or None


def _config(generator: str, query: str, where: str) -> dict[str, Any]:
    from reasoning_gym.factory import DATASETS

    if generator not in DATASETS:
        near = difflib.get_close_matches(generator, DATASETS, n=3)
        fix = f"Did you mean {' or '.join(near)}?" if near else "Its gallery lists the generators."
        raise DipscopeError(f"reasoning-gym has no generator '{generator}'", where, fix)
    defaults = DATASETS[generator][1]()
    known = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
    known = {k: v for k, v in known.items() if k not in ("seed", "size")}
    config: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        key, _, text = part.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"It has: {', '.join(known)}."
            raise DipscopeError(f"{generator} has no option '{key}'", where, hint)
        try:
            config[key] = _typed(text, known[key])
        except ValueError:
            kind = type(known[key]).__name__
            raise DipscopeError(f"'{text}' is no {kind}", f"{where} ({key})", "Correct the value.") from None
    _create(where, generator, config, 1)
    return config


def _typed(text: str, like: Any) -> Any:
    """`text` as the type that the option's default has."""
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(like, (list, tuple)):
        return [_typed(t, like[0] if like else "") for t in text.split(",")]
    if isinstance(like, (int, float)):
        return type(like)(text)
    return text


def _create(where: str, generator: str, config: dict[str, Any], size: int) -> Any:
    try:
        return gym_worker.dataset(generator, config, SEED, size)
    except Exception as error:  # each generator checks its options in its own way
        reason = str(error) or type(error).__name__
        raise DipscopeError(f"the generator refuses its options ({reason})", where, "Correct them.") from None


_worker = Kept(gym_worker.__name__, PATIENCE)
