"""What sampling a teacher will take, before it is done, and a limit that is never passed while it is."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from dipscope.engine.text import Ask, Draft
from dipscope.errors import DipscopeError
from dipscope.units import duration

BYTES_PER_TOKEN = 4  # of English and formulas in byte-level vocabularies, about; for estimates only
_TEMPLATE = 64  # tokens that a chat template adds to a prompt, at most


@dataclass(frozen=True)
class Prices:
    """Dollars, or any other money, for a million tokens."""

    prompt: float = 0.0
    response: float = 0.0

    def of(self, prompt_tokens: float, tokens: float) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.prompt + tokens * self.response) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What is still to be done.

    Attributes:
        requests: responses that are missing.
        prompt_tokens: of all of them together.
        tokens: of the responses; None where no length is known.
        mean_tokens: the length that `tokens` rests on.
        basis: where that length is from.
        rate: response tokens a second; None where none was measured or given.
        seconds: at that rate.
        cost: of what is missing, in the money of the prices; None without prices or lengths.
        spent: on what the pool holds; None without prices.
    """

    requests: int
    prompt_tokens: int
    tokens: int | None
    mean_tokens: float | None
    basis: str
    rate: float | None
    seconds: float | None
    cost: float | None
    spent: float | None

    def as_dict(self) -> dict[str, Any]:
        """For a machine."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        if not self.requests:
            return ["Nothing is missing."]
        said = [f"Missing: {self.requests:,} responses, about {self.prompt_tokens:,} prompt tokens."]
        if self.tokens is None:
            said.append("Tokens: unknown, the teacher reports no usage (give --mean-tokens).")
        else:
            said.append(f"Tokens: about {self.tokens:,} ({self.mean_tokens:,.0f} a response, {self.basis}).")
        if self.seconds is not None:
            said.append(f"Time: about {duration(self.seconds)} at {self.rate:,.0f} tokens a second.")
        if self.cost is not None:
            spent = f", {self.spent:,.2f} spent so far" if self.spent else ""
            said.append(f"Cost: about {self.cost:,.2f}{spent}.")
        return said


class Budget:
    """Lets a request start only while the whole stays within the limit even if everything runs longest.

    What is in flight is counted as if it took every token it may; what has arrived, as the teacher reported
    it; an attempt whose response was lost on the way, as if it had been charged in full.

    Args:
        prices: of tokens.
        limit: most that may be spent, with what was spent before; None is no limit.
        spent: on what the pool holds already.
    """

    def __init__(self, prices: Prices, limit: float | None, spent: float) -> None:
        self.prices, self.limit, self.spent = prices, limit, spent
        self._in_flight: dict[str, float] = {}
        self._lock = threading.Lock()  # requests start in one thread and are settled in another

    def admit(self, ask: Ask) -> bool:
        """Whether the request may start; if so it is in flight from now on."""
        if self.limit is None:
            return True
        worst = self.prices.of(longest_prompt(ask), ask.sampling.max_tokens)
        with self._lock:
            if self.spent + sum(self._in_flight.values()) + worst > self.limit:
                return False
            self._in_flight[ask.key] = worst
        return True

    def settle(self, draft: Draft) -> None:
        """Take in what came of a request.

        Raises:
            DipscopeError: there is a limit, and the teacher does not say what it used.
        """
        if self.limit is None:
            return
        with self._lock:
            worst = self._in_flight.pop(draft.key, 0.0)
            self.spent += worst * draft.lost
            if draft.n_tokens is not None and draft.n_prompt_tokens is not None:
                self.spent += self.prices.of(draft.n_prompt_tokens, draft.n_tokens)
                return
        if draft.finish != "error":
            raise DipscopeError(
                "the teacher does not report what it used, so no cost can be held",
                "--max-cost",
                "Leave --max-cost out, or limit --rows and --samples.",
            )


def longest_prompt(ask: Ask) -> int:
    """A bound on the tokens of a prompt: no vocabulary needs more than one a byte."""
    return sum(len(content.encode()) + _TEMPLATE for _, content in ask.messages)
