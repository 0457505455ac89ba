"""One's own benchmark, `own/NAME`: a table of prompts and golds, or a Python file that defines `BENCHMARK`.

Nothing is added to a prompt. A table is judged row by row: `math` reads the final answer and compares it as
mathematics (docs/verification.md), `exact` compares text after normalisation, `choice` reads a letter or the
text of one of the row's options. A Python file is the user's own code and is run as such, without a sandbox.
"""

from __future__ import annotations

import runpy
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from dipscope.benchmarks.items import choose, item_id
from dipscope.benchmarks.placeless import Placeless
from dipscope.errors import DipscopeError
from dipscope.scoring import choice, latex, numbers, verifiers, verify
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import DOMAINS, MISSING, Benchmark, Domain, Item, Judgement, Split
from dipscope.scoring.choice import LETTERS
from dipscope.scoring.thinking import Response
from dipscope.workspace import hash_file

SCORERS = ("math", "exact", "choice")
NEEDED = ("name", "domain", "scorer", "max_tokens", "items", "judge")
LONGEST = 500  # characters of an answer without a mark that is compared, and that a record keeps


def get(name: str, path: str | None) -> Benchmark:
    """A benchmark of the user's.

    Args:
        name: `own/NAME`.
        path: its file: a table (JSONL, JSON, CSV, parquet) or a Python file.

    Raises:
        DipscopeError: no file is named or there is none; a Python file fails or defines no benchmark.
    """
    where = f'measure.benchmark."{name}".path'
    if path is None:
        fix = 'Give `path = "items.jsonl"` with prompt and gold, or a Python file that defines BENCHMARK.'
        raise DipscopeError(f"'{name}' needs its file", where, fix)
    file = Path(path).expanduser()
    if not file.is_file():
        raise DipscopeError(f"there is no file '{path}'", where, "Check the path.")
    return _made(name, file, hash_file(file))


@cache
def _made(name: str, file: Path, digest: str) -> Benchmark:
    # Kept by content: a file is read once in a process, and again when it has changed.
    if file.suffix == ".py":
        return _code(name, file, digest)
    return Table(name, file, digest)


class Table(Placeless):
    """Rows with `prompt` and `gold`; `id`, `options`, `cluster` and `scorer` where they are wanted.

    The scorer's version holds the hash of the file: stored responses are judged again when a gold changes.

    Args:
        name: `own/NAME`.
        file: the table.
        digest: SHA-256 of the file.
    """

    max_tokens = 2048

    def __init__(self, name: str, file: Path, digest: str) -> None:
        self.name, self.file = name, file
        self.scorer = f"own/1+{verify.VERSION}+{digest[:12]}"

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` items of a split, in the order of the hashes of their ids; see `items.choose`."""
        return choose(self._items, n, split)

    @cached_property
    def _items(self) -> list[Item]:
        from dipscope.data.reading import files

        found: dict[str, Item] = {}
        for place, row in files.rows(self.file):
            item = _item(row, f"{self.file}, {place}")
            if item.id in found:
                fix = "Give each row an id of its own." if row.get("id") is not None else "Leave one out."
                raise DipscopeError(f"a second item has the id '{item.id}'", f"{self.file}, {place}", fix)
            found[item.id] = item
        if not found:
            raise DipscopeError("the file has no rows", str(self.file), "Write one row for each item.")
        return list(found.values())

    def judge(self, item: Item, response: Response) -> Judgement:
        """The verdict on what follows the thinking; right is what any of the golds makes right."""
        if not (response.closed and response.answer.strip()):
            return MISSING
        scorer, golds = item.gold["scorer"], item.gold["golds"]
        if scorer == "choice":
            letter = choice.strict(response.answer, item.gold["options"])
            return MISSING if letter is None else Judgement.of(letter in golds, letter)
        said = final_answer(response.answer)
        if scorer == "math":
            return MISSING if said is None else _best(golds, said)
        bare = response.answer.strip()
        if said is None and len(bare) > LONGEST:
            return MISSING
        # An answer without a mark is the whole text: short factual answers come so.
        text = said or bare
        return Judgement.of(normal(text) in {normal(gold) for gold in golds}, text[:LONGEST])


def normal(text: str) -> str:
    """Text as `exact` compares it: NFKC, lower case, single spaces, without marks at its ends."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join(folded.split())
    return plain.strip(" \"'`*_.,;:!?()[]“”‘’") or plain


def form(gold: str) -> str:
    r"""The scorer that a gold asks for by its form: `math` for a number or LaTeX, else `exact`.

    A number may have one word behind it, its unit. LaTeX has a `\`, `^` or `=`, or stands between `$`.
    """
    text = gold.strip()
    if any(mark in text for mark in "\\^=") or (len(text) > 2 and text[0] == text[-1] == "$"):
        return "math"
    short = len(text.split()) <= 2
    return "math" if short and numbers.number(latex.clean(text)) is not None else "exact"


def _best(golds: list[str], said: str) -> Judgement:
    judged = list(verifiers.shared().judge([(gold, said) for gold in golds]))
    for verdict in ("correct", "error"):  # an error may hide that it was right
        for one in judged:
            if one.verdict == verdict:
                return one
    return judged[0]


def _item(row: Mapping[str, Any], where: str) -> Item:
    def refuse(what: str, fix: str) -> DipscopeError:
        return DipscopeError(what, where, fix)

    for column in ("prompt", "gold"):
        if row.get(column) is None or row[column] in ("", []):
            held = ", ".join(map(str, row)) or "nothing"
            raise refuse(f"the row has no {column}; it has {held}", "Each row needs prompt and gold.")
    golds = [str(gold) for gold in (row["gold"] if isinstance(row["gold"], list) else [row["gold"]])]
    options = row.get("options") or []
    if not isinstance(options, list) or len(options) == 1 or len(options) > len(LETTERS):
        raise refuse("options are no list of 2 to 26 texts", "Write them as a list.")
    options = [str(option) for option in options]
    scorer = row.get("scorer") or ("math" if all(form(gold) == "math" for gold in golds) else "exact")
    if scorer not in SCORERS:
        raise refuse(f"there is no scorer '{scorer}'", f"Scorers are {', '.join(SCORERS)}.")
    first = golds[0]
    if options:
        letters = {**dict(zip(options, LETTERS, strict=False)), **{c: c for c in LETTERS[: len(options)]}}
        if scorer == "choice" and all(gold in letters for gold in golds):
            golds = [letters[gold] for gold in golds]
            first = options[LETTERS.index(golds[0])]
        elif first not in options:
            raise refuse(f"the gold '{first}' is none of the options", "Write it as one of them.")
    elif scorer == "choice":
        raise refuse("the scorer choice needs options", "Add the texts in the order of their letters.")
    prompt = str(row["prompt"])
    return Item(
        item_id(prompt, *options) if row.get("id") is None else str(row["id"]),
        prompt,
        {"scorer": scorer, "golds": golds, "options": options},
        cluster=str(row.get("cluster") or ""),
        options=(first, *dict.fromkeys(o for o in options if o != first)) if options else (),
    )


@dataclass
class Code:
    """What a Python file defines, under the name that the study gives it.

    Attributes:
        name: `own/NAME`.
        domain: the file's; the study may say another.
        scorer: the file's, with its hash: stored responses are judged again when the code changes.
        max_tokens: the file's.
        inner: its `BENCHMARK`.
    """

    name: str
    domain: Domain
    scorer: str
    max_tokens: int
    inner: Benchmark

    def items(self, n: int, split: Split) -> list[Item]:
        """What the file's `items` gives.

        Raises:
            DipscopeError: two items share an id.
        """
        found = list(self.inner.items(n, split))
        if len({item.id for item in found}) < len(found):
            raise DipscopeError("two items have the same id", self.name, "Give each an id of its own.")
        return found[:n]

    def judge(self, item: Item, response: Response) -> Judgement:
        """What the file's `judge` gives."""
        return self.inner.judge(item, response)


def _code(name: str, file: Path, digest: str) -> Benchmark:
    try:
        defined = runpy.run_path(str(file))
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DipscopeError(f"the file fails when it is run: {reason}", str(file), "Correct it.") from error
    inner: Any = defined.get("BENCHMARK")
    lacking = [key for key in NEEDED if not hasattr(inner, key)]
    if lacking:
        what = "the file defines no BENCHMARK" if inner is None else f"BENCHMARK lacks {', '.join(lacking)}"
        raise DipscopeError(
            what, str(file), f"It needs {', '.join(NEEDED)} (dipscope.scoring.base.Benchmark)."
        )
    if inner.domain not in DOMAINS:
        fix = f"Domains are {', '.join(DOMAINS)}."
        raise DipscopeError(f"there is no domain '{inner.domain}'", str(file), fix)
    return Code(name, inner.domain, f"{inner.scorer}+{digest[:12]}", inner.max_tokens, inner)
