"""Sources: every schema and format gives the same traces; streams are bounded; errors name the line."""

import csv
import gzip
import hashlib
import io
import json
import pickle
import random
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dipscope.data import traces
from dipscope.data.reading import files
from dipscope.data.reading.sources import Source, count, open_table
from dipscope.data.traces import Trace, query_id
from dipscope.errors import DipscopeError


class Example(NamedTuple):
    prompt: str
    system: str
    responses: list[str]
    gold: str


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns if role != "system" or text.strip()]


def sharegpt(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": text} for role, text in turns if role != "system" or text.strip()]


# Each schema writes an example with one response as one row. The system turn is kept where it has a place.
SCHEMAS: dict[str, tuple[bool, Callable[[Example], dict[str, Any]]]] = {
    "paper": (True, lambda e: {
        "message": chat(("system", e.system), ("user", e.prompt)), "response": e.responses[0],
        "advantage": 1.0, "answer": e.gold, "prompt": "rendered"}),
    "messages": (True, lambda e: {
        "messages": chat(("system", e.system), ("user", e.prompt), ("assistant", e.responses[0])),
        "answer": e.gold}),
    "messages as text": (True, lambda e: {
        "messages": json.dumps(chat(("system", e.system), ("user", e.prompt), ("assistant", e.responses[0]))),
        "gold": e.gold}),
    "completion": (False, lambda e: {"prompt": e.prompt, "completion": e.responses[0], "answer": e.gold}),
    "chat completion": (True, lambda e: {
        "prompt": chat(("system", e.system), ("user", e.prompt)),
        "completion": chat(("assistant", e.responses[0])), "answer": e.gold}),
    "sharegpt": (True, lambda e: {
        "conversations": sharegpt(("human", e.prompt), ("gpt", e.responses[0])), "system": e.system,
        "ground_truth": e.gold}),
    "problem": (False, lambda e: {"problem": e.prompt, "solution": e.responses[0], "answer": e.gold}),
    "alpaca": (False, lambda e: {
        "instruction": e.prompt, "input": "", "output": e.responses[0], "answer": e.gold}),
}  # fmt: skip

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
EXAMPLES = st.lists(
    st.builds(
        Example,
        prompt=st.one_of(st.sampled_from(["Why?", "why?", "1+1"]), TEXT.filter(lambda t: t.strip() != "")),
        system=st.sampled_from(["", "Think first."]),
        responses=st.lists(TEXT, min_size=1, max_size=3),
        gold=st.sampled_from(["", "42", "\\frac12", "x=1"]),
    ),
    min_size=1,
    max_size=12,
)


def expected(examples: Sequence[Example], system: bool, lists: bool = False) -> list[tuple[str, ...]]:
    """The canonical traces, said once more in the plainest way."""
    seen: Counter[str] = Counter()
    result = []
    for e in examples:
        context = ""
        if system and e.system:
            context = json.dumps([{"role": "system", "content": e.system}])
        query = query_id(e.prompt, context)
        for response in e.responses if lists else e.responses[:1]:
            result.append((f"{query}-{seen[query]}", query, e.prompt, response, e.gold, context))
            seen[query] += 1
    return result


def shown(found: Sequence[Trace]) -> list[tuple[str, ...]]:
    return [(t.id, t.query, t.prompt, t.response, t.gold, t.context) for t in found]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    name = path.name
    if name.endswith(".parquet"):
        pl.DataFrame(list(rows), infer_schema_length=None).write_parquet(path, row_group_size=3)
    elif name.endswith(".csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    else:
        text = "".join(json.dumps(r) + "\n" for r in rows)
        if name.startswith("array"):
            text = json.dumps(list(rows), indent=1, ensure_ascii=False)
        data = text.encode()
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize(
    "name", ["t.parquet", "t.jsonl", "t.jsonl.gz", "array.json", "array.json.gz", "t.json"]
)
@pytest.mark.parametrize("schema", SCHEMAS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=EXAMPLES)
def test_every_schema_round_trips(tmp_path: Path, schema: str, name: str, examples: list[Example]) -> None:
    system, row = SCHEMAS[schema]
    path = write(tmp_path / name, [row(e) for e in examples])
    table = open_table(Source(path=str(path)))
    found = list(table.stream())
    assert shown(found) == expected(examples, system)
    assert len({t.id for t in found}) == len(found)
    assert table.rows == count(Source(path=str(path))) == len(examples)
    assert list(open_table(Source(path=str(path))).take(range(len(found)))) == found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=EXAMPLES)
def test_csv_round_trips(tmp_path: Path, examples: list[Example]) -> None:
    path = write(tmp_path / "t.csv", [SCHEMAS["problem"][1](e) for e in examples])
    found = list(open_table(Source(path=str(path))).stream())
    assert shown(found) == expected(examples, False)


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=EXAMPLES, data=st.data())
def test_pools_and_any_selection_of_them(
    tmp_path: Path, name: str, examples: list[Example], data: st.DataObject
) -> None:
    """One row per query with a list, split over two files; `take` equals the stream, in either state."""
    folder = tmp_path / "pool"
    folder.mkdir(exist_ok=True)
    half = len(examples) // 2
    rows = [{"question": e.prompt, "responses": e.responses, "answer": e.gold} for e in examples]
    suffix = name.removeprefix("t")
    for old in folder.iterdir():
        old.unlink()
    for i, part in enumerate(p for p in (rows[:half], rows[half:]) if p):
        write(folder / f"part-{i}{suffix}", part)
    source = Source(path=str(folder))
    table = open_table(source)
    assert table.lists and count(source) is None
    found = list(table.stream())
    assert shown(found) == expected(examples, False, lists=True)
    ordinals = sorted(data.draw(st.sets(st.integers(0, len(found) - 1))))
    picked = [found[i] for i in ordinals]
    assert list(table.take(ordinals)) == picked
    assert list(open_table(source).take(ordinals)) == picked


def test_one_row_per_response_counts_within_its_query(tmp_path: Path) -> None:
    rows = [{"problem": p, "response": f"r{i}"} for i, p in enumerate(["a", "b", "A ", "c", "b", "a"])]
    found = list(open_table(Source(path=str(write(tmp_path / "t.parquet", rows)))).stream())
    a, b, c = (query_id(p) for p in "abc")
    assert [t.id for t in found] == [f"{a}-0", f"{b}-0", f"{a}-1", f"{c}-0", f"{b}-1", f"{a}-2"]
    assert [t.source for t in found] == [f"t.parquet:{i}" for i in range(6)]


def test_places_in_the_source(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"question": "a", "answer": "b"}\n\n{"question": "c", "answer": "d"}\n'
    )
    assert [t.source for t in open_table(Source.parse(str(tmp_path / "t.jsonl"))).stream()] == [
        "t.jsonl:1",
        "t.jsonl:3",
    ]
    pool = write(tmp_path / "p.parquet", [{"problem": "q", "generations": ["a", "b"]}])
    assert [t.source for t in open_table(Source(path=str(pool))).stream()] == [
        "p.parquet:0#0",
        "p.parquet:0#1",
    ]


def test_our_own_tables_and_shards_come_back(tmp_path: Path) -> None:
    context = json.dumps([{"role": "system", "content": "Be brief."}])
    made = [
        Trace("x-0", "x", "p", "r", "3", "teacher", "correct", "teacher:1", context, "stop"),
        Trace("x-1", "x", "p", "[]", "3", "replay", "wrong", "teacher:2", context, "length"),
        Trace("y-0", "y", '[{"role": "user", "content": "p"}]', "r", "", "human", "", "there", "", ""),
    ]
    traces.write(tmp_path / "part-b.parquet", made[2:])
    traces.write(tmp_path / "part-a.parquet", made[:2])
    traces.write(tmp_path / "part-c.parquet", [])
    (tmp_path / "provenance.json").write_text("{}")
    (tmp_path / ".part-d.parquet.1.tmp").write_text("half")
    table = open_table(Source.parse(str(tmp_path)))
    assert list(table.stream()) == made
    assert [t.response for t in open_table(Source(path=str(tmp_path)), need_response=False).stream()] == [
        ""
    ] * 3


def test_a_prefilled_opening_mark_is_put_back(tmp_path: Path) -> None:
    rows = [{"question": "q", "response": r} for r in ("a</think>b", "<think>\na</think>b")]
    path = str(write(tmp_path / "t.jsonl", rows))
    assert [t.response for t in open_table(Source(path=path, prefilled=True)).stream()] == [
        "<think>\na</think>b"
    ] * 2


GOOD = b'{"question": "a", "answer": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n{"question": "a", \n', "t.jsonl:2: this is no JSON"),
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n["a"]\n', "t.jsonl:2: the row is no JSON object"),
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n\n{"question": "a", "answer": null}\n',
         "t.jsonl:3: answer is null, not text"),
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n{"question": 7, "answer": "b"}\n',
         "t.jsonl:2: question is a number, not text"),
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n{"question": "a", "answer": "\\ud800"}\n',
         "t.jsonl:2: the text holds half of a surrogate pair"),
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n{"question": "a", "answer": "\xff"}\n',
         "t.jsonl:2: the text is not UTF-8"),
        ("t.jsonl", GOOD + b"\n" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
         "t.jsonl:2: the JSON is nested too deeply"),
        ("t.json", b'[' + GOOD + b',\n{"question": "a", "answer": 1}]', "t.json[1]: answer is a number"),
        ("t.json", b'[{"question": "a", "answer": "b"},\n{"question": "a"', "t.json:2: this is no JSON"),
        ("t.json", b'[{"question": "a", "answer": "b"},\n', "t.json:2: the JSON array is cut off"),
        ("t.json", b'[' + GOOD + b'\n' + GOOD + b']', "t.json:2: the array holds"),
        ("t.json", b'[{"question": "a", "answer": "b"},\n3]', "t.json:2: the array holds"),
        ("t.json", b'[' + GOOD + b',\n{"question": "a", "answer": "\xff"}]', "the text is not UTF-8"),
        ("t.json", b'{\n "data": [1]\n}', "t.json:1: this is no JSON"),
        ("t.csv", b"question,answer\na,b\nc\n", "t.csv:3: the row has not as many fields"),
        ("t.csv", b'question,answer\na,b\n"c,d\n', "this is no CSV"),
        ("t.csv", b"question,answer\na,b\n\xff,d\n", "t.csv:3: the text is not UTF-8"),
        ("t.jsonl.gz", gzip.compress((GOOD + b"\n") * 99, mtime=0)[:-9], "the file cannot be read"),
        ("t.jsonl.gz", b'{"question": "a"}', "the file cannot be read"),
        ("t.jsonl", b"\n\n", "no column looks like the response"),
    ],
)  # fmt: skip
def test_bad_rows_are_one_line_with_their_place(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DipscopeError) as caught:
        list(open_table(Source(path=str(path))).stream())
    assert says in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_null_response_in_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"problem": "q", "response": r} for r in ("a", "b", None)])
    with pytest.raises(DipscopeError, match=r"t\.parquet:2: response is null"):
        list(open_table(Source(path=str(path))).stream())


@pytest.mark.parametrize("damage", ["cut", "head", "footer", "empty", "text", "body"])
def test_a_damaged_parquet_file_is_one_line(tmp_path: Path, damage: str) -> None:
    rows = [{"problem": f"q{i}", "response": "r" * 500 + str(i)} for i in range(50)]
    path = write(tmp_path / "t.parquet", rows)
    data = bytearray(path.read_bytes())
    if damage == "body":
        data[4:400] = bytes(b ^ 0xFF for b in data[4:400])
    path.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "head": data[100:],
            "footer": data[:-308] + b"\0" * 300 + data[-8:],
            "empty": b"",
            "text": b"no parquet at all, only words",
            "body": data,
        }[damage]
    )
    with pytest.raises(DipscopeError) as caught:
        list(open_table(Source(path=str(path))).stream())
    assert "t.parquet" in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_any_changed_byte_reads_or_is_one_line(tmp_path: Path, at: float, byte: int) -> None:
    path = tmp_path / "t.parquet"
    write(path, [{"problem": f"q{i}", "response": "r" * 20, "answer": i} for i in range(7)])
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = byte
    path.write_bytes(data)
    try:
        list(open_table(Source(path=str(path))).stream())
    except DipscopeError as error:
        assert "\n" not in str(error)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    group=st.integers(1, 400),
    batch=st.integers(1, 300),
    size=st.integers(1, 50_000),
    wanted=st.sets(st.integers(0, 399)),
)
def test_row_groups_and_batches_of_any_size_read_the_same(
    tmp_path: Path, group: int, batch: int, size: int, wanted: set[int]
) -> None:
    path = tmp_path / "t.parquet"
    rows = [{"message": chat(("user", f"q{i}")), "response": str(i) * 100} for i in range(400)]
    pl.DataFrame(rows).write_parquet(path, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BATCH_ROWS", batch)
        patch.setattr(files, "BATCH_BYTES", size)
        assert list(files.rows(path)) == [(str(i), row) for i, row in enumerate(rows)]
        picked = sorted(wanted)
        assert list(files.rows(path, ["response"], picked)) == [
            (str(i), {"response": rows[i]["response"]}) for i in picked
        ]


def test_columns_of_other_types_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """Times finer or later than Python's, and text that is not UTF-8, matter only where they are read."""
    path = tmp_path / "t.parquet"
    columns = {
        "created": pa.array([1, 2], pa.timestamp("ns", "Nowhere/Land")),
        "day": pa.array([2**30, 0], pa.date32()),
        "problem": pa.array(["a", "b"]).dictionary_encode(),
        "response": pa.array(["r", "s"], pa.large_string()),
        "lone": pa.array([b"ok", b"\xff"]).view(pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DipscopeError, match=r"t\.parquet: the file cannot be read \('utf-8'"):
        open_table(Source(path=str(path)))
    pq.write_table(pa.table(columns).drop_columns(["lone"]), path)
    found = list(open_table(Source(path=str(path))).stream())
    assert [(t.prompt, t.response) for t in found] == [("a", "r"), ("b", "s")]
    for name in ("created", "day"):
        with pytest.raises(DipscopeError, match="cannot be read") as caught:
            list(files.rows(path, [name]))
        assert "\n" not in str(caught.value)
    pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 2, names=["response", "response"]), path)
    with pytest.raises(DipscopeError, match="the column response is there twice"):
        open_table(Source(path=str(path)))


@pytest.mark.parametrize("name", ["t.pkl", "t.pt", "t.py", "t.arrow", "t.npz", "t.txt", "t.parquet.gz"])
def test_other_formats_are_refused_unread(tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DipscopeError, match=r"not read|no table"):
        open_table(Source(path=str(tmp_path / name)))
    with pytest.raises(DipscopeError, match="no table"):
        open_table(Source(path=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_folders_of_several_tables_ask_for_one(tmp_path: Path) -> None:
    rows = [{"problem": "q", "response": "r"}]
    for name in ("cot.parquet", "no_cot.parquet", "rows.jsonl"):
        write(tmp_path / name, rows)
    with pytest.raises(DipscopeError, match=r"several tables: cot, no_cot\. Name one.*cot\.parquet"):
        open_table(Source(path=str(tmp_path)))
    assert open_table(Source(path=str(tmp_path), file="no_cot.parquet")).rows == 1
    assert open_table(Source(path=str(tmp_path), file="rows.jsonl")).rows == 1
    with pytest.raises(DipscopeError, match=r"no file 'x\.parquet'"):
        open_table(Source(path=str(tmp_path), file="x.parquet"))
    with pytest.raises(DipscopeError, match="leaves"):
        Source(path=str(tmp_path), file="../x.parquet")


def test_missing_shards_and_missing_columns(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", [{"problem": "q", "response": "r"}])
    with pytest.raises(DipscopeError, match="only 1 of the 2 shards"):
        open_table(Source(path=str(tmp_path)))
    write(tmp_path / "train-00001-of-00002.parquet", [{"problem": "q", "solution": "r"}])
    with pytest.raises(
        DipscopeError, match=r"train-00001-of-00002\.parquet: the file lacks the column response"
    ):
        list(open_table(Source(path=str(tmp_path))).stream())


def test_what_a_word_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.jsonl", [{"problem": "q", "response": "r"}])
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert Source.parse("t.jsonl") == Source(path="t.jsonl")
    assert Source.parse("owner/name") == Source(path="owner/name")
    assert Source.parse("./absent.parquet") == Source(path="absent.parquet")
    assert Source.parse("other/name") == Source(hub="other/name")
    full = Source(hub="other/name", revision="v1", file="data/a.parquet")
    assert Source.parse("other/name@v1:data/a.parquet") == full
    assert Source.parse("other/name:data/train-*") == Source(hub="other/name", file="data/train-*")
    assert Source.parse("math-cot-20k@main:x.parquet") == Source(
        hub="jasonrqh/Math-CoT-20k", revision="main", file="x.parquet"
    )
    with pytest.raises(DipscopeError, match="Did you mean Math-CoT-20k"):
        Source.parse("Math-CoT-20")
    with pytest.raises(DipscopeError, match="no such file"):
        open_table(Source.parse("./absent.parquet"))
    with pytest.raises(DipscopeError, match="either"):
        Source()


def test_settings_identify_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.jsonl", [{"problem": "q", "response": "r"}])
    source = Source(path=str(path), columns={"prompt": "problem"}, prefilled=True)
    found = source.settings()
    assert json.loads(json.dumps(found)) == found
    assert found["files"] == {"t.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert Source.from_settings(found) == source
    path.write_text('{"problem": "q", "response": "s"}')
    assert source.settings() != found
    monkeypatch.setattr("dipscope.data.reading.sources.HASHED", 10)
    assert source.settings()["files"] == {"t.jsonl": [path.stat().st_size, path.stat().st_mtime_ns]}
    pinned = Source(hub="math-cot-20k").settings()
    assert pinned["sha256"].startswith("3166f342") and Source.from_settings(pinned) == Source.from_settings(
        Source(hub="jasonrqh/Math-CoT-20k").settings()
    )


def test_local_checksums_and_facts(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"problem": "q", "response": "r"}])
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = open_table(Source(path=str(path), sha256=good)).facts
    assert facts["source"] == "t.jsonl"
    assert facts["files"] == [{"name": "t.jsonl", "sha256": good, "bytes": path.stat().st_size}]
    assert facts["columns"] == {"prompt": "problem", "response": "response"} and facts["rows"] == 1
    assert json.loads(json.dumps(facts)) == facts
    with pytest.raises(DipscopeError, match=f"{good}, not {'0' * 64}"):
        open_table(Source(path=str(path), sha256="0" * 64))


def test_take_wants_ascending_places_that_exist(tmp_path: Path) -> None:
    table = open_table(Source(path=str(write(tmp_path / "t.jsonl", [{"problem": "q", "response": "r"}] * 3))))
    assert list(table.take([])) == []
    with pytest.raises(ValueError, match="ascending"):
        list(table.take([1, 1]))
    with pytest.raises(DipscopeError, match="trace 3 is asked for, there are 3"):
        list(table.take([0, 3]))


def test_take_reads_only_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"problem": f"q{i}", "response": f"r{i}"} for i in range(50)]
    table = open_table(Source(path=str(write(tmp_path / "t.parquet", rows))))
    read: list[tuple[tuple[str, ...], int]] = []
    original = files.rows

    def counted(path: Path, needed: Any = None, wanted: Any = None) -> Any:
        for place, row in original(path, needed, wanted):
            read.append((tuple(row), int(place)))
            yield place, row

    monkeypatch.setattr(files, "rows", counted)
    assert [t.response for t in table.take([7, 30])] == ["r7", "r30"]
    assert [place for names, place in read if "response" in names] == [7, 30]


def test_a_json_array_longer_than_the_buffer(tmp_path: Path) -> None:
    rows = [{"problem": f"{i} “é”", "response": '\\"}{][,' * 4000} for i in range(200)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows, ensure_ascii=False))
    assert path.stat().st_size > 5 << 20
    found = list(open_table(Source(path=str(path))).stream())
    assert [(t.prompt, t.response) for t in found] == [(r["problem"], r["response"]) for r in rows]
    path.write_text("[]")
    assert files.count(path) == 0


@pytest.mark.parametrize(
    "name", ["long_cot/unireason_sft_math500.jsonl.gz", "alpaca_eval/gpt4_1106_preview.json.gz"]
)
def test_real_files_read_as_they_are(shared: Path, name: str) -> None:
    with gzip.open(shared / name, "rt") as file:
        text = file.read()
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    found = list(open_table(Source.parse(str(shared / name))).stream())
    assert [t.response for t in found] == [r.get("response") or r.get("output") for r in rows]
    assert [t.prompt for t in found] == [r.get("problem") or r.get("instruction") for r in rows]


def test_token_probabilities_are_not_read(tmp_path: Path) -> None:
    row = {"message": [{"role": "user", "content": "q"}], "response": "r", "logprob": [-0.5, -0.1]}
    table = open_table(Source(path=str(write(tmp_path / "t.parquet", [row]))))
    assert "logprob" in table.mapping.unused and table.mapping.needed == ["message", "response"]
    assert [t.response for t in table.stream()] == ["r"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "group"),
    [("pool.parquet", 14_000, 1000), ("pool.jsonl", 14_000, 0), ("giant.parquet", 40_000, 40_000)],
)
def test_memory_is_bounded(tmp_path: Path, name: str, n: int, group: int) -> None:
    """A pool streams in well under its own size on disk, also when all of it is one row group."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    path, rng = tmp_path / name, random.Random("pool")
    body = [f"<think>\n{rng.randbytes(7_500).hex()}\n</think>\n\n{i}" for i in range(n)]
    rows = {"message": [[{"role": "user", "content": f"q{i // 32}"}] for i in range(n)], "response": body}
    if name == "giant.parquet":
        pq.write_table(pa.table(rows), path, compression="none", row_group_size=group)
        assert pq.ParquetFile(path).num_row_groups == 1 and path.stat().st_size > 600e6
    elif name.endswith(".parquet"):
        pl.DataFrame(rows).write_parquet(path, compression="uncompressed", row_group_size=group)
    else:
        pl.DataFrame(rows).write_ndjson(path)
    assert path.stat().st_size > 200e6
    del body, rows
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from dipscope.data.reading.sources import Source, open_table
        import polars, pyarrow.parquet
        def peak():  # `ru_maxrss` would start at the parent's
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0])
        begun = peak()
        table = open_table(Source.parse(sys.argv[1]))
        n = int(sys.argv[2])
        assert sum(1 for _ in table.stream()) == n
        assert sum(1 for _ in table.take(range(0, n, 40))) == n // 40
        print(peak() - begun)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(n)],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    assert int(done.stdout) < 400 << 10, f"{int(done.stdout) >> 10} MB more than at the start"


def test_a_stream_can_be_left_early(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"problem": f"q{i}", "response": "r"} for i in range(9)])
    table = open_table(Source(path=str(path)))
    first = next(table.stream())
    assert list(table.take([0])) == [first]
    assert len(list(table.stream())) == 9


def test_bytes_with_a_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"question": "a", "answer": "b"}\r\n\r\n{"question": "c", "answer": "d"}\r\n'
    )
    assert [t.prompt for t in open_table(Source(path=str(path))).stream()] == ["a", "c"]
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["question", "answer"], ["a\nb", "c"], ["d", "e"]])
    other = tmp_path / "t.csv"
    other.write_bytes(b"\xef\xbb\xbf" + stream.getvalue().encode())
    assert [(t.prompt, t.source) for t in open_table(Source(path=str(other))).stream()] == [
        ("a\nb", "t.csv:3"),
        ("d", "t.csv:4"),
    ]
