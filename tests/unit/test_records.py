import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope import records
from dipscope.errors import DipscopeError


def row(item, text="x", **more):
    base = dict.fromkeys(records.SCHEMA)
    base.update(
        checkpoint="c", benchmark="b", probe="generate", item=item, sample=0, text=text, verdict="correct"
    )
    return {**base, **more}


@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=12, unique=True), st.randoms(use_true_random=False)
)
def test_the_digest_sees_content_and_nothing_of_how_it_was_split(tmp_path_factory, texts, random):
    rows = [row(f"i{n}", text) for n, text in enumerate(texts)]
    whole = tmp_path_factory.mktemp("whole")
    records.append(whole, records.frame(rows))
    random.shuffle(rows)
    parts = tmp_path_factory.mktemp("parts")
    cut = random.randint(0, len(rows))
    for some in (rows[:cut], rows[cut:]):
        if some:
            records.append(parts, records.frame(some))
    first, second = records.read(records.shards(whole)), records.read(records.shards(parts))
    assert records.digest(first) == records.digest(second)
    changed = second.with_columns(pl.lit("wrong").alias("verdict"))
    assert records.digest(first) != records.digest(changed)


def test_a_repeated_record_counts_once(tmp_path):
    records.append(tmp_path, records.frame([row("a"), row("b")]))
    records.append(tmp_path, records.frame([row("b"), row("c")]))
    assert records.canonical(records.read(records.shards(tmp_path)))["item"].to_list() == ["a", "b", "c"]


def test_a_record_made_again_after_an_error_replaces_it_wherever_it_stands(tmp_path):
    good = row("a", finish="stop")
    unjudged, broken = row("a", verdict="error", finish="stop"), row("a", verdict="error", finish="error")
    for rows in ([good, unjudged, broken], [broken, unjudged, good], [unjudged, good, broken]):
        assert records.canonical(records.frame(rows)).rows() == records.frame([good]).rows()
    for rows in ([unjudged, broken], [broken, unjudged]):
        assert records.canonical(records.frame(rows)).rows() == records.frame([unjudged]).rows()


@pytest.mark.parametrize("where", [0, 50, -1])
def test_one_flipped_byte_is_noticed(tmp_path, where):
    path = records.append(tmp_path, records.frame([row("a")]))
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(DipscopeError, match="damaged") as caught:
        records.read(records.shards(tmp_path))
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_missing_shard_is_noticed(tmp_path):
    with pytest.raises(DipscopeError, match="missing"):
        records.read([tmp_path / "part-0.parquet"])


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ({"verdict": "correct", "finish": "stop", "answer": "4"}, "extracted"),
        ({"verdict": "wrong", "finish": "length", "answer": "4"}, "extracted"),
        ({"verdict": "missing", "finish": "length", "answer": ""}, "truncated"),
        ({"verdict": "missing", "finish": "stop", "answer": " \n"}, "no answer"),
        ({"verdict": "missing", "finish": "stop", "answer": "it depends"}, "format not followed"),
        ({"verdict": "error", "finish": "error", "answer": ""}, "error"),
    ],
)
def test_outcomes(told, outcome):
    assert records.frame([row("a", **told)]).select(records.outcome()).item() == outcome
