"""Rows of foreign table files, in bounded memory: parquet, JSONL, JSON arrays and CSV."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from dipscope.errors import DipscopeError
from dipscope.interop.listing import refuse, suffix

Row = Mapping[str, Any]

BATCH_ROWS, BATCH_BYTES = 256, 1 << 20  # of parquet that are decoded at a time, whichever is less
BUFFER_BYTES = 1 << 20  # of a parquet column's compressed pages that are read at a time
PART_BYTES = 64 << 20  # of decompressed parquet from which row groups are a part of their own
MAX_ROW = 64 << 20  # bytes of one row of text: what is longer is no table of rows
_SURROGATE = re.compile(r"\\u[dD]")
_BLANK = re.compile(r"[ \t\r\n]*")


def columns(path: Path) -> list[str]:
    """Column names of a table: of a parquet file all, else those of its first rows."""
    if suffix(path.name) == ".parquet":
        with _parquet_file(path) as file:
            return list(file.schema_arrow.names)
    return list(dict.fromkeys(key for row in head(path) for key in row))


def head(path: Path, n: int = 16) -> Sequence[Row]:
    """The first rows of a table, without lists of numbers: log-probabilities of tokens are large."""
    light: list[str] | None = None
    if suffix(path.name) == ".parquet":
        with _parquet_file(path) as file:
            light = [field.name for field in file.schema_arrow if _light(field.type)]
    return [row for _, row in islice(rows(path, light), n)]


def empty(path: Path) -> bool:
    """Whether a table has no rows."""
    return not count(path) if suffix(path.name) == ".parquet" else not head(path, 1)


def count(path: Path) -> int:
    """Rows of a table: from the metadata of a parquet file, else by reading it."""
    kind = suffix(path.name)
    if kind == ".parquet":
        with _parquet_file(path) as file:
            return int(file.metadata.num_rows)
    if kind in (".jsonl", ".ndjson"):
        return sum(1 for _, line in _lines(path) if line.strip())
    return sum(1 for _ in rows(path))


def parts(path: Path) -> list[range | None]:
    """Stretches of rows that can be read apart from each other, in order; None is all rows.

    Row groups of a parquet file, joined up to 64 MB; other formats are read from their beginning.
    """
    if suffix(path.name) != ".parquet":
        return [None]
    found: list[range | None] = []
    with _parquet_file(path) as file:
        start = end = size = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            end, size = end + group.num_rows, size + group.total_byte_size
            if size >= PART_BYTES or number == file.num_row_groups - 1:
                found.append(range(start, end))
                start, size = end, 0
    return found or [None]


def rows(
    path: Path, needed: Sequence[str] | None = None, wanted: Sequence[int] | None = None
) -> Iterator[tuple[str, Row]]:
    """The rows of a table with the place of each, in the order of the file.

    Args:
        path: a parquet, JSONL, JSON or CSV file.
        needed: the columns to read; None reads all. Text formats yield whatever the row holds.
        wanted: ascending numbers of the rows to yield, from 0; None yields all.

    Yields:
        The place (`17` is the row number in parquet from 0, the line in JSONL and CSV, `[17]` the element of
        a JSON array) and the row.

    Raises:
        DipscopeError: the file cannot be read, or a row of it is malformed; with file and line.
    """
    kind = suffix(path.name)
    if kind == ".parquet":
        return _parquet(path, needed, wanted)
    if kind is None:
        raise refuse(str(path))
    reader = {".json": _json, ".csv": _csv}.get(kind, _jsonl)
    return reader(path, None if wanted is None else frozenset(wanted))


def _parquet(
    path: Path, needed: Sequence[str] | None, wanted: Sequence[int] | None
) -> Iterator[tuple[str, Row]]:
    with _parquet_file(path) as file:
        lacking = [c for c in needed or () if c not in file.schema_arrow.names]
        if lacking:
            raise DipscopeError(
                f"the file lacks the column {', '.join(lacking)}",
                str(path),
                "All files of a table need its columns.",
            )
        places = range(file.metadata.num_rows) if wanted is None else wanted
        at = end = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            start, end = end, end + group.num_rows
            if at == len(places) or places[at] >= end:
                continue
            size = min(BATCH_ROWS, max(1, BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
            batches = file.iter_batches(size, row_groups=[number], columns=needed, use_threads=False)
            for batch in batches:
                stop = bisect_left(places, start + len(batch), at)
                picks = places[at:stop]
                if picks and len(picks) < len(batch):
                    chosen = batch.take([place - start for place in picks])
                else:
                    chosen = batch.slice(0, len(picks))
                for place, row in zip(picks, chosen.to_pylist(), strict=True):
                    yield str(place), row
                start, at = start + len(batch), stop
                if at == len(places) or places[at] >= end:
                    break


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile` that reads page by page."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    # Values that Python's types cannot hold (years, zones, text that is not UTF-8) raise the latter three.
    with (
        _readable(path, pa.ArrowException, ValueError, OverflowError, LookupError),
        # Without a buffer, or with pre-buffering, the columns of a whole row group are read at once.
        ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file,
    ):
        names = file.schema_arrow.names
        metadata = file.metadata
        if metadata.num_rows != sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)):
            raise ValueError("its row groups do not have the rows that it says")
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise DipscopeError(f"the column {twice} is there twice", str(path), "Rename or drop one.")
        yield file


def _light(kind: Any) -> bool:
    """Whether a column of this Arrow type may tell what a row holds: no lists of numbers, no times."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return not (types.is_integer(kind.value_type) or types.is_floating(kind.value_type))
    return not types.is_temporal(kind)


def _jsonl(path: Path, wanted: frozenset[int] | None) -> Iterator[tuple[str, Row]]:
    number = -1
    for line_number, line in _lines(path):
        if not line.strip():
            continue
        number += 1
        if wanted is None or number in wanted:
            yield str(line_number), _object(line, path, line_number)


def _csv(path: Path, wanted: frozenset[int] | None) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(MAX_ROW)
    reader = csv.DictReader((_decoded(line, path, n) for n, line in _lines(path)), strict=True)
    number = -1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise _bad(path, reader.line_num, f"this is no CSV ({error})") from None
        if row is None:
            return
        number += 1
        if None in row or None in row.values():
            raise _bad(path, reader.line_num, "the row has not as many fields as the header")
        if wanted is None or number in wanted:
            yield str(reader.line_num), row


def _json(path: Path, wanted: frozenset[int] | None) -> Iterator[tuple[str, Row]]:
    """A JSON array of objects, element by element; what does not start with a bracket is read as JSONL."""
    with _readable(path), _open(path) as file:
        first = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if first != b"[":
        yield from _jsonl(path, wanted)
        return
    for number, row in enumerate(_elements(path)):
        if wanted is None or number in wanted:
            yield f"[{number}]", row


def _elements(path: Path) -> Iterator[Row]:
    """The objects of a JSON array, holding no more text than one object and a chunk."""
    decode = json.JSONDecoder().raw_decode
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    buffer, at, line, expected, problem = "", 0, 1, "[", ""
    with _readable(path), _open(path) as file:
        while True:
            blank = _BLANK.match(buffer, at).end()  # type: ignore[union-attr]  # it matches nothing as well
            line, at = line + buffer.count("\n", at, blank), blank
            here = buffer[at : at + 1]
            if here and here in expected and here != "{":
                if here == "]":
                    return
                at, expected = at + 1, "{]" if here == "[" else "{"
                continue
            if here and here not in expected:
                raise _bad(path, line, "the array holds something else than JSON objects, divided by commas")
            if here:
                try:
                    row, end = decode(buffer, at)
                except RecursionError:
                    raise _bad(path, line, "the JSON is nested too deeply") from None
                except ValueError as error:  # perhaps only because the rest is not here yet
                    problem = f"this is no JSON ({error})"
                    if len(buffer) - at > MAX_ROW:
                        raise _bad(path, line, problem) from None
                else:
                    _whole_characters(row, buffer[at:end], path, line)
                    yield row
                    problem = ""
                    line, at, expected = line + buffer.count("\n", at, end), end, ",]"
                    continue
            chunk = file.read(max(1 << 20, len(buffer) - at))
            if not chunk:
                raise _bad(path, line, problem or "the JSON array is cut off")
            try:
                buffer, at = buffer[at:] + utf8.decode(chunk), 0
            except UnicodeDecodeError as error:
                raise _bad(path, line, f"the text is not UTF-8 ({error.reason})") from None


def _object(line: bytes, path: Path, number: int) -> Row:
    text = _decoded(line, path, number)
    try:
        row = json.loads(text)
    except RecursionError:
        raise _bad(path, number, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise _bad(path, number, f"this is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise _bad(path, number, "the row is no JSON object")
    _whole_characters(row, text, path, number)
    return row


def _whole_characters(row: Row, text: str, path: Path, line: int) -> None:
    """Refuse half of a surrogate pair, which only an escape in `text` can bring in."""
    if _SURROGATE.search(text):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _bad(path, line, "the text holds half of a surrogate pair") from None


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise _bad(path, number, f"the text is not UTF-8 ({error.reason})") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _readable(path), _open(path) as file:
        number = 0
        while line := file.readline(MAX_ROW + 1):
            number += 1
            if len(line) > MAX_ROW:
                raise _bad(path, number, f"a row is longer than {MAX_ROW >> 20} MB")
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def _readable(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a damaged or missing file raises into one line; `errors` are its format's own."""
    known: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, *errors)
    try:
        yield
    except FileNotFoundError:
        raise DipscopeError("there is no such file", str(path), "Check the path.") from None
    except known as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DipscopeError(
            f"the file cannot be read ({reason})",
            str(path),
            "It is damaged or not what its name says: fetch or write it again.",
        ) from None


def _bad(path: Path, line: int, what: str) -> DipscopeError:
    return DipscopeError(what, f"{path}:{line}", "Mend or remove the row.")
