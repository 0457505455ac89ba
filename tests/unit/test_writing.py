"""Trace tables written a group of rows at a time."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import ParquetFile

from dipscope.data import traces
from dipscope.data.building import writing
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TRACES = st.lists(st.builds(Trace, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT), max_size=20)


def row(n, size=10):
    return Trace(f"q-{n}", "q", "p", "r" * size)


@given(TRACES)
def test_what_is_written_is_read_again(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "new" / "t.parquet"
    assert writing.write(path, iter(rows)) == len(rows)
    assert traces.read(path) == rows
    first = path.read_bytes()
    writing.write(path, rows)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize(
    ("rows", "size", "expected"), [(2500, 10, [1024, 1024, 452]), (7, 16 << 20, [2, 2, 2, 1])]
)
def test_groups_are_bounded_in_rows_and_characters(tmp_path, rows, size, expected):
    path = tmp_path / "t.parquet"
    writing.write(path, (row(n, size) for n in range(rows)))
    metadata = ParquetFile(path).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == expected


def test_what_was_there_stays_when_the_rows_or_the_disk_end(tmp_path):
    path = tmp_path / "t.parquet"
    writing.write(path, [row(0)])

    def broken():
        yield from (row(n) for n in range(3000))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.write(path, broken())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DipscopeError, match="cannot write") as caught:
            writing.write(path, (Trace(f"{n}", "q", "p", f"{n * 7919}") for n in range(3000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.fault
    assert traces.read(path) == [row(0)] and [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
