"""The paper's published datasets by name: where each stands, what is pinned, what is known about it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

OWNER = "jasonrqh"

_LICENCE = "The repository states no licence."
_UNPINNED = (
    "No revision or checksum of this set is on record: what the default branch holds is read. "
    "Pin it with revision and sha256."
)
_SAME_QUERIES = "Same queries as Math-CoT-20k."


@dataclass(frozen=True)
class Published:
    """One published dataset.

    Attributes:
        name: name on the Hub, below `OWNER`.
        rows: rows of the table; None where they are not known exactly.
        summary: what it holds, in a line.
        revision: commit that the facts belong to; None where none is on record.
        file: the parquet file of that commit.
        sha256: its checksum.
        origin: who wrote the responses, as in `Trace.origin`.
        aliases: other names that it is called by.
        notes: what is known about its rows and its terms.
    """

    name: str
    rows: int | None
    summary: str
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    origin: str = "teacher"
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def hub(self) -> str:
        """Repository id."""
        return f"{OWNER}/{self.name}"


SETS = (
    Published(
        "Math-CoT-20k",
        20480,
        "Qwen3-32B thinking responses to OpenR1-Math queries, each verified",
        revision="1435fb21d4fecc8ad4966a26f22a874cf2b527f1",
        file="Math-CoT-20k.parquet",
        sha256="3166f342ec838ebe0979be43923abb33fa1c80f33043aa6acc04e5d82161142a",
        notes=(
            "Rows 12364, 16249 and 16611 have an equation as answer that the response states scaled by a "
            "constant; a comparison of equations without scaling calls them wrong.",
            "896 answers contain an equals sign.",
            "Prompts are shorter than 1,500 tokens.",
            _LICENCE,
        ),
    ),
    Published(
        "Math-NoCoT-20k",
        20480,
        "the rows of Math-CoT-20k without their thinking block: final summary and answer",
        notes=(_SAME_QUERIES, _UNPINNED, _LICENCE),
    ),
    Published(
        "Countdown-CoT-20k",
        20480,
        "the Countdown game, Qwen3-32B long chains of thought",
        notes=("The answer holds numbers and target.", _UNPINNED, _LICENCE),
    ),
    Published(
        "NuminaMath-20k",
        20480,
        "short solutions written by people, from NuminaMath-1.5",
        origin="human",
        aliases=("Numina-Math-20k",),
        notes=(_SAME_QUERIES, _UNPINNED, _LICENCE),
    ),
    Published(
        "DeepSeek-R1-20k",
        20480,
        "verified DeepSeek-R1 responses",
        notes=(_SAME_QUERIES, "The responses come from the LUFFY dataset.", _UNPINNED, _LICENCE),
    ),
    Published(
        "Math-CoT-44k-Qwen3-32b-n32-16384-with-logprob-and-entropy",
        None,
        "the raw pool: about 44,000 queries with 32 responses each, unverified, up to 16,384 tokens",
        aliases=("Math-CoT-44k",),
        notes=("Teacher log-probabilities and entropies are not read.", _UNPINNED, _LICENCE),
    ),
)


def find(name: str) -> Published | None:
    """The published set called `name`: its name, an alias, or either below the owner; case does not count."""
    short = name.casefold().removeprefix(f"{OWNER}/")
    for known in SETS:
        if short in (n.casefold() for n in (known.name, *known.aliases)):
            return known
    return None


def near(name: str) -> list[str]:
    """Published names that look like `name`, best first."""
    names = {n.casefold(): n for known in SETS for n in (known.name, *known.aliases)}
    short = name.casefold().removeprefix(f"{OWNER}/")
    return [names[n] for n in difflib.get_close_matches(short, names, n=2)]
