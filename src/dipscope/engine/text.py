"""Engines at the level of texts: chat messages go in, responses come out, wherever the model runs.

A remote server renders prompts and decodes tokens itself, so what is sampled from a teacher is asked and
answered in text. Engines that take token ids are wrapped (`data.writers.EngineWriter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from dipscope.engine.base import Finish

Message = tuple[str, str]  # role, content


@dataclass(frozen=True)
class TextSampling:
    """How one response is drawn. The defaults are those of the paper's teacher.

    Temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 switch the filters off.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    min_p: float = 0.0
    max_tokens: int = 16384


@dataclass(frozen=True)
class Ask:
    """One response wanted: the turns before it, how it is drawn, and the seed of its random numbers."""

    key: str
    messages: tuple[Message, ...]
    sampling: TextSampling
    seed: int


@dataclass(frozen=True)
class Draft:
    """One response, or the reason why there is none.

    Attributes:
        key: of the `Ask`.
        text: the response with its thinking block; empty when `finish` is `error`.
        finish: `stop` and `length` as the engine reported them, never inferred; `error` when none came.
        n_tokens: tokens of the response as the engine counted them; None when it did not say.
        n_prompt_tokens: tokens of the rendered prompt, likewise.
        reason: why there is no response, in a few words.
        lost: attempts before this one whose response was written but never arrived whole: the server may
            have charged for them.
    """

    key: str
    text: str
    finish: Finish
    n_tokens: int | None = None
    n_prompt_tokens: int | None = None
    reason: str = ""
    lost: int = 0


class Writer(Protocol):
    """Something that writes responses."""

    @property
    def name(self) -> str:
        """Who writes, as stored with every response, for example `server/Qwen3-32B`."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the model, as far as it is known; goes into the provenance."""
        ...

    def write(self, asks: Iterable[Ask]) -> Iterator[Draft]:
        """Yield a draft for every ask, in any order. Asks are taken as they can be served."""
        ...
