"""Tables of traces from anywhere: local files and folders, the Hub, the paper's published sets.

A source is opened into a table whose foreign columns are mapped to the fields of a trace; the table streams
in bounded memory, one trace for each response.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from dipscope.data.reading import columns, files, parallel, published
from dipscope.data.reading.columns import Columns, Row
from dipscope.data.reading.turns import BadRow
from dipscope.data.traces import Trace, query_id
from dipscope.errors import DipscopeError
from dipscope.interop import listing
from dipscope.scoring.thinking import OPEN
from dipscope.workspace import hash_file

T = TypeVar("T")

WORTH = 32 << 20  # bytes of files for which another process starts to read
HASHED = 1 << 30  # bytes of a local source up to which its content, beyond which size and time identify it

_HUB = re.compile(r"(?P<hub>[\w.-]+/[\w.-]+)(@(?P<revision>[^:@]+))?(:(?P<file>.+))?")


@dataclass(frozen=True)
class Source:
    """Where a table of traces stands, and how it is to be read.

    Attributes:
        path: a local file or folder; or
        hub: a dataset repository `owner/name`, or the name of a published set.
        revision: branch, tag or commit of the repository; None is the default branch, or the pinned commit
            of a published set.
        file: the file to read of a folder or repository, or a glob such as `data/train-*`.
        sha256: checksum that the one file must have.
        columns: field → column, over what is inferred (`data.columns`).
        prefilled: the writer's prompt had opened the thinking block: the mark is put in front of responses.
    """

    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    prefilled: bool = False

    def __post_init__(self) -> None:
        """Refuse what names no place or two."""
        if (self.path is None) == (self.hub is None):
            raise DipscopeError(
                "a source is either a path or a Hub repository", "source", "Name one of them."
            )
        if self.path is not None and self.revision is not None:
            raise DipscopeError("revision belongs to a Hub repository", self.path, "Drop it.")
        if self.file is not None:
            listing.inside(self.file, self.label)

    @classmethod
    def parse(cls, text: str) -> Source:
        """A source from one word: `FILE`, `FOLDER`, `owner/name[@revision][:file]`, or a published name.

        What exists on the disk is a path, whatever else it looks like.

        Raises:
            DipscopeError: it is none of these.
        """
        path = Path(text).expanduser()
        pathlike = text.startswith((".", "/", "~")) or (listing.suffix(text) is not None and ":" not in text)
        if path.exists() or pathlike:
            return cls(path=str(path))
        name = re.split("[@:]", text, maxsplit=1)[0]
        known = published.find(name)
        match = _HUB.fullmatch(known.hub + text[len(name) :] if known else text)
        if match is None:
            near = published.near(name)
            raise DipscopeError(
                "this is no file, no folder, no owner/name on the Hub and no published set",
                text,
                f"Did you mean {' or '.join(near)}?" if near else "Check the name.",
            )
        return cls(hub=match["hub"], revision=match["revision"], file=match["file"])

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The source that `settings` were taken from."""
        names = ("path", "hub", "revision", "file", "sha256", "columns", "prefilled")
        return cls(**{name: settings[name] for name in names if name in settings})

    @property
    def label(self) -> str:
        """The source for a reader: the path, or `owner/name@revision`."""
        return f"{self.hub}@{self.revision}" if self.revision else str(self.path or self.hub)

    @property
    def published(self) -> published.Published | None:
        """The published set that this is, if it is one."""
        return published.find(self.hub) if self.hub else None

    def pinned(self) -> Source:
        """The same source with the revision and checksum that are on record for a published set.

        What the user gave stays. Another revision or file than the recorded one has no recorded checksum.
        """
        known = self.published
        if known is None:
            return self
        named = replace(self, hub=known.hub)
        if self.revision not in (None, known.revision) or self.file not in (None, known.file):
            return named
        return replace(named, revision=known.revision, file=known.file, sha256=self.sha256 or known.sha256)

    def settings(self) -> dict[str, Any]:
        """The source as JSON, for a content key.

        Local files count by their SHA-256; where they have more than a gigabyte together, by size and time
        of change.
        """
        source = self.pinned()
        found: dict[str, Any] = {"columns": dict(source.columns), "prefilled": source.prefilled}
        for name in ("path", "hub", "revision", "file", "sha256"):
            if (value := getattr(source, name)) is not None:
                found[name] = value
        if source.path is not None:
            there = _local(source)
            stats = {name: path.stat() for name, path in there.items()}
            small = sum(s.st_size for s in stats.values()) <= HASHED
            found["files"] = {
                name: hash_file(path) if small else [stats[name].st_size, stats[name].st_mtime_ns]
                for name, path in there.items()
            }
        return found


def count(source: Source) -> int | None:
    """How many traces a source has, where that is known without a download and without reading all of it."""
    source = source.pinned()
    if source.hub is not None:
        known = source.published
        return known.rows if known and source.revision == known.revision else None
    table = open_table(source)
    return None if table.lists else table.rows


def open_table(source: Source, *, need_response: bool = True) -> Table:
    """Find the files of a source, fetching them if need be, and map their columns.

    Args:
        source: where the table stands.
        need_response: False reads questions only: one trace for each row, with an empty response.

    Raises:
        DipscopeError: there is no such source, it cannot be read, its checksum is another, or its columns
            are ambiguous.
    """
    source = source.pinned()
    if source.path is not None:
        there, commit = _local(source), None
        if source.sha256 is not None:
            listing.verify(there, source.sha256, source.label)
    else:
        from dipscope.interop import hub

        paths, commit = hub.resolve_dataset(str(source.hub), source.revision, source.file, source.sha256)
        there = {hub.inner_name(path): path for path in paths}
    filled = next((p for p in there.values() if not files.empty(p)), next(iter(there.values())))
    mapping = columns.infer(
        files.columns(filled),
        files.head(filled),
        source.columns,
        need_response=need_response,
        where=source.label,
    )
    return Table(source, there, mapping, commit)


class Table:
    """An opened source.

    Attributes:
        source: where it was read, pinned.
        mapping: how its columns map to fields; `describe()` shows it.
        lists: whether a row may hold several responses.
    """

    def __init__(
        self, source: Source, there: Mapping[str, Path], mapping: Columns, commit: str | None
    ) -> None:
        self.source, self.mapping = source, mapping
        self.lists = mapping.kinds.get(mapping.fields.get("response", "")) == "texts"
        self._files, self._commit = there, commit
        known = source.published
        self._origin = known.origin if known else "teacher"
        self._index: _Index | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Field → column, as inferred or given."""
        return dict(self.mapping.fields)

    @cached_property
    def rows(self) -> int:
        """Rows of the files; a row with a list of responses gives several traces."""
        return sum(files.count(path) for path in self._files.values())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a provenance says of the source, as JSON. Computing it reads every file once.

        A local source is named without its folder, so that the same data give the same facts anywhere.
        """
        known = self.source.published
        path = self.source.path
        facts: dict[str, Any] = {"source": Path(path).resolve().name if path else self.source.label}
        if self.source.hub is not None:
            facts |= {"hub": self.source.hub, "revision": self._commit, "asked": self.source.revision}
        facts["files"] = [
            {"name": name, "sha256": hash_file(path), "bytes": path.stat().st_size}
            for name, path in self._files.items()
        ]
        facts |= {"rows": self.rows, "columns": self.columns, "reading": self.mapping.describe()}
        facts["prefilled"] = self.source.prefilled
        facts["checked"] = self.source.sha256 is not None
        if known is not None:
            facts["notes"] = list(known.notes)
        return facts

    def stream(self) -> Iterator[Trace]:
        """Every trace in the order of the files, in bounded memory.

        Raises:
            DipscopeError: a row cannot be read; with its file and line.
        """
        index = _Index()
        for name, path in self._files.items():
            for place, foreign in files.rows(path, self.mapping.needed):
                row = self._read(foreign, path, place)
                query = index.query(row)
                for n, number in enumerate(index.add(query, len(row.responses))):
                    yield self._trace(row, f"{query}-{number}", query, n, name, place)
            index.end_file()
        self._index = index

    def scan(self, look: Callable[[Iterator[Trace]], Iterator[T]], workers: int = 1) -> Iterator[T]:
        """What `look` makes of all traces, its results in the order of the table, in bounded memory.

        The table is read in parts, which are row groups of parquet and other files as a whole, by several
        processes at once. Each part is looked at by itself.

        Args:
            look: takes traces to their end and yields results now and then; a function of a module, or a
                partial one. The traces have no id: to number the responses of a query, those of other parts
                would have to be known.
            workers: processes at most; small tables are read in this one.

        Raises:
            DipscopeError: a row cannot be read, or a process was lost.
        """
        pieces: list[_Part] = []
        for name, path in self._files.items():
            stretches = files.parts(path)
            pieces += (_Part(name, path, rows, rows is stretches[-1]) for rows in stretches)
        workers = min(workers, sum(path.stat().st_size for path in self._files.values()) // WORTH)
        self._index, index = None, _Index()
        for seen, last, results in parallel.ordered(partial(_look, self, look), pieces, workers):
            for query, n in seen:
                index.add(query, n)
            if last:
                index.end_file()
            yield from results
        self._index = index

    def unnumbered(self, part: _Part, seen: list[tuple[str, int]]) -> Iterator[Trace]:
        """The traces of a part, without their ids.

        Args:
            part: where they are.
            seen: is given the query of each row and the number of its responses.
        """
        index = _Index()
        for place, foreign in files.rows(part.path, self.mapping.needed, part.rows):
            row = self._read(foreign, part.path, place)
            query = index.query(row)
            seen.append((query, len(row.responses)))
            for n in range(len(row.responses)):
                yield self._trace(row, "", query, n, part.name, place)

    def take(self, ordinals: Sequence[int]) -> Iterator[Trace]:
        """The traces at these places of the stream, equal to those that `stream` yields there.

        Numbering the responses of a query needs a look at every question before; a table that was streamed
        to its end has that already.

        Args:
            ordinals: ascending, from 0, each once.

        Raises:
            DipscopeError: there are fewer traces, or a row cannot be read.
        """
        if any(b <= a for a, b in pairwise(ordinals)) or (ordinals and ordinals[0] < 0):
            raise ValueError("ordinals are not ascending")
        index = self._index = self._index or self._indexed()
        if ordinals and ordinals[-1] >= len(index.numbers):
            raise DipscopeError(
                f"trace {ordinals[-1]} is asked for, there are {len(index.numbers)}", self.source.label
            )
        rows = [bisect_right(index.starts, o) - 1 for o in ordinals]
        at, before = 0, 0
        for (name, path), end in zip(self._files.items(), index.ends, strict=True):
            stop = at
            while stop < len(rows) and rows[stop] < end:
                stop += 1
            wanted = list(dict.fromkeys(rows[at:stop]))
            found = files.rows(path, self.mapping.needed, [r - before for r in wanted]) if wanted else ()
            for number, (place, foreign) in zip(wanted, found, strict=True):
                row = self._read(foreign, path, place)
                query = index.query(row)
                while at < stop and rows[at] == number:
                    ordinal = ordinals[at]
                    n = ordinal - index.starts[number]
                    yield self._trace(row, f"{query}-{index.numbers[ordinal]}", query, n, name, place)
                    at += 1
            before = end

    def _indexed(self) -> _Index:
        """Number every response by reading the questions, and the responses only where a row has several."""
        index = _Index()
        fields = {n: c for n, c in self.mapping.fields.items() if n in ("prompt", "context", "query")}
        slim = self.mapping if self.lists else replace(self.mapping, fields=fields)
        for path in self._files.values():
            for place, foreign in files.rows(path, slim.needed):
                row = self._read(foreign, path, place, slim)
                index.add(index.query(row), len(row.responses))
            index.end_file()
        return index

    def _read(
        self, foreign: Mapping[str, Any], path: Path, place: str, mapping: Columns | None = None
    ) -> Row:
        try:
            return (mapping or self.mapping).read(foreign)
        except BadRow as error:
            where = f"{path}{place}" if place.startswith("[") else f"{path}:{place}"
            raise DipscopeError(str(error), where, "Mend or remove the row, or name other columns.") from None

    def _trace(self, row: Row, ident: str, query: str, n: int, name: str, place: str) -> Trace:
        response = row.responses[n]
        if self.source.prefilled and not response.lstrip().startswith(OPEN):
            response = f"{OPEN}\n{response}"
        where = f"{name}{place}" if place.startswith("[") else f"{name}:{place}"
        return Trace(
            ident,
            query,
            row.prompt,
            response,
            row.gold,
            row.origin or self._origin,
            row.verdict,
            row.source or (f"{where}#{n}" if self.lists else where),
            row.context,
            row.finishes[n],
        )


class _Part(NamedTuple):
    """A stretch of a file; `last` ends the file."""

    name: str
    path: Path
    rows: range | None
    last: bool


def _look(
    table: Table, look: Callable[[Iterator[Trace]], Iterator[T]], part: _Part
) -> Iterator[tuple[list[tuple[str, int]], bool, list[T]]]:
    """For `Table.scan`: the rows that were read since, whether they end a file, and what they gave."""
    seen: list[tuple[str, int]] = []
    for result in look(table.unnumbered(part, seen)):
        yield seen.copy(), False, [result]
        seen.clear()
    yield seen, part.last, []


class _Index:
    """Which response of its query each trace is, and with which trace each row begins."""

    def __init__(self) -> None:
        self.numbers, self.starts, self.ends = array("I"), array("Q"), list[int]()
        self._seen: Counter[str] = Counter()
        self._last = ("", "", "")

    def query(self, row: Row) -> str:
        """Id of a row's query; rows of one query mostly follow each other."""
        if row.query:
            return row.query
        if self._last[:2] != (row.prompt, row.context):
            self._last = (row.prompt, row.context, query_id(row.prompt, row.context))
        return self._last[2]

    def add(self, query: str, n: int) -> range:
        """Take in a row of `n` responses; the numbers that they get within their query."""
        first = self._seen[query]
        self._seen[query] = first + n
        self.starts.append(len(self.numbers))
        numbers = range(first, first + n)
        self.numbers.extend(numbers)
        return numbers

    def end_file(self) -> None:
        """Note where a file's rows end."""
        self.ends.append(len(self.starts))


def _local(source: Source) -> dict[str, Path]:
    """The files of a local source by name, in reading order."""
    path = Path(str(source.path)).expanduser()
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        return {name: path / name for name in listing.choose(names, source.file, str(path))}
    if not path.exists():
        raise DipscopeError("there is no such file or folder", str(path), "Check the path.")
    if source.file is not None:
        raise DipscopeError("file names a file inside a folder, and this is a file", str(path), "Drop it.")
    if listing.suffix(path.name) is None or not path.is_file():
        raise listing.refuse(str(path))
    return {path.name: path}
