"""Trace tables written row by row, for tables that are not to be held in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from dipscope.data.traces import SCHEMA, Trace
from dipscope.workspace import unwritable

GROUP_ROWS, GROUP_CHARACTERS = 1024, 32 << 20  # of a row group at most, which is all that is held


def write(path: Path, traces: Iterable[Trace]) -> int:
    """Write a trace table, whole or not at all, holding one row group. The same traces give the same bytes.

    Args:
        path: the parquet file; what is there is replaced when all is written.
        traces: the rows.

    Returns:
        How many rows there were.

    Raises:
        DipscopeError: the disk is full or the place cannot be written; what was there before stays.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(name, pa.large_string()) for name in SCHEMA])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            with ParquetWriter(file, schema, compression="zstd") as writer:
                for group in _groups(traces):
                    columns = [pa.array(column, pa.large_string()) for column in zip(*group, strict=True)]
                    writer.write_table(pa.table(columns, schema=schema), row_group_size=len(group))
                    rows += len(group)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise
    return rows


def _groups(traces: Iterable[Trace]) -> Iterator[list[tuple[Any, ...]]]:
    group: list[tuple[Any, ...]] = []
    size = 0
    for trace in traces:
        group.append(astuple(trace))
        size += len(trace.prompt) + len(trace.response)
        if len(group) == GROUP_ROWS or size >= GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group
