"""Items of published benchmarks: from the Hub at a pinned revision, or from a local file in the same layout.

No item text ships with dipscope. Which items are taken, in which order and in which split follows from a hash
of their content, so that it is the same everywhere and does not change when a set is stored in another order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipscope.errors import DipscopeError
from dipscope.scoring.base import Item, Split

LARGE = 200  # items from which on a quarter is set apart as dev


@dataclass(frozen=True)
class Source:
    """One file of a dataset repository on the Hub.

    Attributes:
        hub: repository id, `owner/name`.
        revision: the commit that is fetched; None is the head of the default branch, which may move.
        file: the file inside the repository.
        sha256: checksum of the file; None: the revision alone says which one it is.
        gated: its owner asks for terms to be accepted first.
        licence: of the items, as their publisher states it.
    """

    hub: str
    revision: str | None
    file: str
    sha256: str | None
    gated: bool = False
    licence: str = ""

    @property
    def where(self) -> str:
        """The source as one reads it: `owner/name@revision, file`, of a commit its first digits."""
        revision = re.sub(r"^([0-9a-f]{12})[0-9a-f]{28}$", r"\1", self.revision or "")
        return f"{self.hub}{f'@{revision}' if revision else ''}, {self.file}"


@dataclass(frozen=True)
class Defaults:
    """How a benchmark is run where a study does not say otherwise; None leaves it to `[measure]`."""

    items: int | None = None
    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


def rows(source: Source, path: Path | None = None) -> list[dict[str, Any]]:
    """All rows of a published set.

    Args:
        source: where it is published.
        path: a local copy that is read instead: JSONL, JSON, CSV (each also gzipped) or parquet.

    Raises:
        DipscopeError: the file is not there, is malformed or has another checksum than the source says; the
            Hub cannot be reached and its cache does not hold the file; access was not granted.
    """
    from dipscope.data.reading import files
    from dipscope.interop import hub

    if path is None:
        try:
            paths, _ = hub.resolve_dataset(source.hub, source.revision, source.file, source.sha256)
        except DipscopeError as error:
            fix = error.fix if "`path`" in error.fix else f"{error.fix} Or give a copy of it as `path`."
            raise DipscopeError(error.what, error.where, fix, fault=error.fault) from None
    elif path.expanduser().is_file():
        paths = [path.expanduser()]
    else:
        fix = f"Check the path, or leave it out: {source.where} is fetched from the Hub then."
        raise DipscopeError("there is no such file of items", str(path), fix)
    return [dict(row) for one in paths for _, row in files.rows(one)]


def field(row: dict[str, Any], name: str, source: Source) -> Any:
    """One field of a row.

    Raises:
        DipscopeError: the row lacks it: the file is not in the published layout.
    """
    if name not in row:
        held = ", ".join(map(str, row)) or "nothing"
        raise DipscopeError(
            f"the items lack the field '{name}'; they have {held}",
            source.where,
            "Give `path` a file in the layout of that source.",
        )
    return row[name]


def item_id(*parts: str) -> str:
    """Content hash of an item: 16 hex digits of SHA-256 over its parts, which are kept apart."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def choose(items: Sequence[Item], n: int, split: Split, *, whole: bool = False) -> list[Item]:
    """The first `n` items of a split in the order of their hashes; all of them when it has fewer.

    A set of more than 200 items has a dev split: a quarter, with clusters kept together. The test split of a
    smaller one is the whole set.

    Args:
        items: the whole set; of items with the same id the first counts.
        n: how many are wanted.
        split: which part.
        whole: the test split is the whole set however large it is, as published results have it.

    Raises:
        DipscopeError: the dev split of a set that has none.
    """
    distinct = list({item.id: item for item in reversed(items)}.values())
    ordered = sorted(distinct, key=lambda item: (_hash("order", item.id), item.id))
    if whole or len(distinct) <= LARGE:
        if split == "dev":
            why = "the protocol measures all of it" if whole else f"it has {len(distinct)} items"
            raise DipscopeError(f"this set has no dev split: {why}", "measure.split", 'Set split = "test".')
        return ordered[:n]
    return [i for i in ordered if (_hash("split", i.cluster or i.id) % 4 == 0) == (split == "dev")][:n]


def _hash(purpose: str, key: str) -> int:
    return int(item_id(purpose, key), 16)
