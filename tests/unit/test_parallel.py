"""Tables read by several processes give what one finds, in the same order; whatever happens to them."""

import operator
import os
import random
import time
from functools import partial

import polars as pl
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data.building import build as building
from dipscope.data.building import pool
from dipscope.data.reading import files, parallel, sources
from dipscope.data.reading.parallel import ordered
from dipscope.data.reading.sources import Source, open_table
from dipscope.errors import DipscopeError
from dipscope.scoring.verifiers import Verifiers


def test_results_come_in_the_order_of_the_tasks():
    """Tasks of very different sizes, some of them empty, many more results than are taken in ahead."""
    tasks = [5, 0, 3 * parallel.AHEAD, 1, 2, 10 * parallel.AHEAD, 0, 7]
    expected = [result for task in tasks for result in range(task)]
    assert list(ordered(range, tasks, 1)) == list(ordered(range, tasks, 3)) == expected
    assert list(ordered(range, [], 3)) == []


def test_a_process_far_ahead_rests_and_all_end_with_the_iterator():
    started = time.monotonic()
    results = ordered(range, [1, 10**9], 2)
    assert next(results) == 0 and next(results) == 0
    assert len(psutil.Process().children()) >= 2
    results.close()
    alive = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    assert not alive and time.monotonic() - started < 60


def test_an_error_is_raised_in_its_turn():
    results = ordered(partial(map, int), ["12", "3x", "4"], 2)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_a_lost_process_is_one_line_and_does_not_hang():
    with pytest.raises(DipscopeError, match="fewer --workers") as caught:
        list(ordered(partial(map, os._exit), [[9], [9]], 2))
    assert caught.value.fault


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3), st.lists(st.sampled_from(["\\boxed{1}", "<think>\nno end", "none"]), max_size=4)
    ),
    min_size=1,
    max_size=24,
)


def numbers(found):
    return (list(found.queries), found.query, found.state, found.length, list(found.pairs), found.pair)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 7), st.integers(1, 9))
def test_parts_of_any_size_are_one_table(tmp_path_factory, rows, group, chunk):
    """Lists of responses, some empty; parts of one row group; pools of a few responses."""
    folder = tmp_path_factory.mktemp("pool")
    table = {
        "problem": [f"q{query}" for query, _ in rows],
        "answer": ["1" for _ in rows],
        "generations": [said for _, said in rows],
    }
    schema = {"problem": pl.String, "answer": pl.String, "generations": pl.List(pl.String)}
    frame = pl.DataFrame(table, schema)
    frame.write_parquet(folder / "t-00001.parquet", row_group_size=group)
    frame.head(0).write_parquet(folder / "t-00002.parquet")
    frame.reverse().write_parquet(folder / "t-00003.parquet", row_group_size=group)
    source = Source(
        path=str(folder), columns={"prompt": "problem", "response": "generations", "gold": "answer"}
    )
    opened = open_table(source)
    if not opened.lists:  # no response in the first rows: nothing to tell the column's kind by
        return
    expected = list(opened.stream())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PART_BYTES", 1)
        patch.setattr(pool, "_CHUNK", chunk)
        scanned = open_table(source)
        found = pool.read(scanned)
    names = list(found.queries)
    assert [names[q] for q in found.query] == [t.query for t in expected]
    assert names == list(dict.fromkeys(t.query for t in expected))
    assert [bool(state == pool.COMPLETE) for state in found.state] == [
        "boxed" in t.response for t in expected
    ]
    assert list(scanned.take(range(len(expected)))) == expected


@pytest.fixture
def many_parts(monkeypatch):
    monkeypatch.setattr(files, "PART_BYTES", 1)
    monkeypatch.setattr(sources, "WORTH", 1)
    monkeypatch.setattr(building, "WORTH", 1)


def write_pool(folder, rows=400):
    draw = random.Random(0)
    folder.mkdir()
    for shard in range(3):
        table = {"prompt": [], "response": [], "answer": [], "finish_reason": []}
        for row in range(rows):
            said = draw.choice([str(row % 50), "7", ""])
            table["prompt"].append(f"What is {row % 50}?")
            table["response"].append(
                f"<think>\nIt is {said}.\n\nWait, let me check.\n</think>\n\n\\boxed{{{said}}}"
            )
            table["answer"].append(str(row % 50))
            table["finish_reason"].append(draw.choice(["stop", "stop", "length"]))
        pl.DataFrame(table).write_parquet(folder / f"part-{shard:05}.parquet", row_group_size=64)


def test_processes_find_what_one_finds(tmp_path, many_parts):
    write_pool(tmp_path / "pool")
    one, several = (open_table(Source(path=str(tmp_path / "pool"))) for _ in range(2))
    alone, together = pool.read(one), pool.read(several, workers=3)
    assert len(together) == 1200 and numbers(together) == numbers(alone)
    assert list(several.take(range(0, 1200, 7))) == list(one.take(range(0, 1200, 7)))
    again = pool.read(several, workers=2)
    assert numbers(again) == numbers(alone)


def test_a_build_with_processes_gives_the_same_bytes(tmp_path, many_parts):
    write_pool(tmp_path / "pool")
    written = []
    for workers in (1, 2):
        out, cards = tmp_path / f"out{workers}", []
        with Verifiers(1) as verifiers:
            table = open_table(Source(path=str(tmp_path / "pool")))
            building.build(
                table,
                out,
                building.Rules(variants=("cot", "no_cot")),
                verifiers,
                card=lambda _, stats, made, cards=cards: cards.append((stats, made["counts"])),
                workers=workers,
            )
        names = ("cot.parquet", "no_cot.parquet", "provenance.json")
        written.append([cards, *((out / name).read_bytes() for name in names)])
    assert operator.eq(*written)


def test_a_bad_row_is_named_from_any_process(tmp_path, many_parts):
    folder = tmp_path / "pool"
    write_pool(folder)
    table = pl.read_parquet(folder / "part-00001.parquet").to_dicts()
    table[130]["response"] = None
    pl.DataFrame(table).write_parquet(folder / "part-00001.parquet", row_group_size=64)
    with pytest.raises(DipscopeError, match=r"part-00001\.parquet:130: response is null"):
        pool.read(open_table(Source(path=str(folder))), workers=2)
