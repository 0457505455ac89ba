"""How long the rows of a dataset are: counted where they were tokenized, else sampled, else assumed."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dipscope.data import countdown
from dipscope.data.reading import published, sources
from dipscope.data.shaping import variants
from dipscope.data.traces import Trace
from dipscope.plan import Cell, Plan
from dipscope.workspace import Workspace

SAMPLE = 32  # rows that are looked at where the data are here but not tokenized
REPLAY_TOKENS = 60  # of a generic prompt and its answer
LONGEST = 4  # a long row, in means: how long one forward pass may become where lengths were not counted
TEMPLATE_TOKENS = 8  # of a chat template around one turn and its answer

# Tokens of prompt and response of the paper's published sets, none of which was tokenized for this: orders
# of magnitude to plan with. 16,250 characters is the mean response of a public filtering of DeepSeek-R1
# traces on the same pool of questions (card of 96kevinli29/SFT-Math-45k), 88 % of them thinking; at about
# three characters a token that makes 5,400 tokens, 650 of them after the thinking. The published R1 set comes
# from traces of at most 8,192 tokens; Qwen3-32B was allowed 16,384 and is taken to think longer. Solutions
# written by people are taken to be shorter than what follows the thinking. For Countdown nothing is known.
ASSUMED = {
    "Math-CoT-20k": (150, 6500),
    "Math-NoCoT-20k": (150, 650),
    "NuminaMath-20k": (150, 450),
    "DeepSeek-R1-20k": (150, 4500),
    "Countdown-CoT-20k": (120, 4000),
}
ASSUMED_ELSE = (150, 4000)


@dataclass(frozen=True)
class RowTokens:
    """Mean lengths of the rows of a dataset, in tokens.

    Attributes:
        prompt: of the prompt in its template.
        target: of what is learned from, end of turn included.
        attended: mean length of the row that a token stands in, Σ length² / Σ length.
        longest: the longest row, or what a long one is taken to be.
        basis: counted in a tokenized table, sampled from a few rows by words and signs, or assumed.
    """

    prompt: float
    target: float
    attended: float
    longest: int
    basis: Literal["counted", "sampled", "assumed"]

    @property
    def total(self) -> float:
        """Mean tokens of a row."""
        return self.prompt + self.target

    def cut(self, limit: int) -> RowTokens:
        """The same rows with at most `limit` tokens each, as far as the means can tell."""
        if self.total <= limit:
            return replace(self, attended=min(self.attended, limit), longest=min(self.longest, limit))
        prompt = min(self.prompt, limit)
        return replace(self, prompt=prompt, target=limit - prompt, attended=limit, longest=limit)


class Rows:
    """Row lengths of a plan's datasets. Each dataset is looked at once."""

    def __init__(self, plan: Plan, workspace: Workspace | None = None) -> None:
        self._plan, self._workspace = plan, workspace
        self._known: dict[str, RowTokens] = {}

    def tokenized(self, cell: Cell) -> RowTokens:
        """Of a tokenize cell: counted if it is complete, else estimated from its data and its limit."""
        if cell.id not in self._known:
            counted = _count(cell, self._workspace) if self._workspace else None
            limit = int(cell.settings["max_length"])
            self._known[cell.id] = counted or self.data(self._plan.cell(cell.needs[1])).cut(limit)
        return self._known[cell.id]

    def data(self, cell: Cell) -> RowTokens:
        """Of a prepare or replay cell, before any limit."""
        if cell.id not in self._known:
            self._known[cell.id] = self._estimate(cell)
        return self._known[cell.id]

    def _estimate(self, cell: Cell) -> RowTokens:
        if cell.kind == "replay":
            return _alike(REPLAY_TOKENS / 2, REPLAY_TOKENS / 2, "assumed")
        if "mix" in cell.settings:
            parts = [self.data(self._plan.cell(need)) for need in cell.needs]
            return _mixed(list(zip(cell.settings["mix"].values(), parts, strict=False)))
        some = _first_rows(cell.settings)
        if some is None:
            known = published.find(str(cell.settings["from"].get("hub")))
            return _alike(*ASSUMED.get(known.name if known else "", ASSUMED_ELSE), "assumed")
        made = [variants.apply(cell.settings["variant"], trace, random.Random(0)) for trace in some]
        prompts, targets = _words(t.prompt for t in made), _words(t.response for t in made)
        return _alike(_mean(prompts) + TEMPLATE_TOKENS - 1, _mean(targets) + 1, "sampled")


def _alike(prompt: float, target: float, basis: Literal["sampled", "assumed"]) -> RowTokens:
    """Rows of which only the means are known: taken to be alike."""
    total = prompt + target
    return RowTokens(prompt, target, total, round(LONGEST * total), basis)


def _mixed(parts: Sequence[tuple[float, RowTokens]]) -> RowTokens:
    prompt, target = (
        sum(share * getattr(row, name) for share, row in parts) for name in ("prompt", "target")
    )
    squares = sum(share * row.attended * row.total for share, row in parts)
    basis = next((b for b in ("assumed", "sampled") if any(row.basis == b for _, row in parts)), "counted")
    longest = max(row.longest for _, row in parts)
    return RowTokens(prompt, target, squares / (prompt + target), longest, basis)  # type: ignore[arg-type]


def _count(cell: Cell, workspace: Workspace) -> RowTokens | None:
    """The lengths in the token table of a complete cell. Its ids, the bulk of it, are not read."""
    from safetensors import SafetensorError, safe_open

    left = workspace.outputs(cell.id)
    if left is None:
        return None
    try:
        with safe_open(workspace.absolute(left["tokens"]), framework="numpy") as file:
            starts, targets = file.get_tensor("starts"), file.get_tensor("targets")
    except (OSError, SafetensorError, KeyError):
        return None  # the run itself finds damage and mends it
    lengths, prompts = starts[1:] - starts[:-1], targets - starts[:-1]
    if not len(lengths) or not lengths.sum():
        return None
    attended = float((lengths.astype(float) ** 2).sum() / lengths.sum())
    prompt = float(prompts.mean())
    return RowTokens(prompt, float(lengths.mean()) - prompt, attended, int(lengths.max()), "counted")


def _first_rows(settings: dict[str, Any]) -> list[Trace] | None:
    """Some traces of a dataset; None where they would have to be fetched first."""
    if "source" in settings:
        return countdown.traces(min(SAMPLE, settings["rows"]), settings["seed"], settings["options"])
    source = sources.Source.from_settings(settings["from"])
    if source.path is None:
        return None
    return list(itertools.islice(sources.open_table(source).stream(), SAMPLE)) or None


def _words(texts: Iterable[str]) -> list[int]:
    """Words, signs, digits and lines of each text: they stand in for tokens."""
    return [len(re.findall(r"\w+|[^\w\s]|\n", text)) for text in texts]


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
