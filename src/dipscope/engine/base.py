"""What every engine does: load a checkpoint, generate, and score given continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Sampling:
    """How one completion is drawn. Temperature 0 is greedy; top_k 0 and top_p 1 switch the filters off."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256


@dataclass(frozen=True)
class Request:
    """One completion to generate.

    `seed` alone decides the random numbers of this request: its result does not depend on what else is
    in the batch. `stop_ids` end the completion and are not part of its tokens.
    """

    key: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    stop_ids: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """What came back: the tokens without the stop token, and why it ended."""

    key: str
    token_ids: tuple[int, ...]
    finish: Finish


@dataclass(frozen=True)
class ScoreRequest:
    """One continuation whose likelihood under the model is wanted."""

    key: str
    prompt_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """Natural-log probability of each continuation token given the prompt and the tokens before it."""

    key: str
    logprobs: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Length-normalised log-likelihood, nats per token."""
        return sum(self.logprobs) / len(self.logprobs)


class Engine(Protocol):
    """The part that runs a model. One engine lives as long as a worker; checkpoints are swapped into it."""

    @property
    def name(self) -> str:
        """Engine and numeric format as stored with every record, for example `local/float32`."""
        ...

    def load(self, checkpoint: Path) -> None:
        """Put a Hugging Face checkpoint directory in place, reusing what the architecture allows."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield completions as they finish, in any order."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Scored]:
        """Yield token log-probabilities of the given continuations, in any order."""
        ...
