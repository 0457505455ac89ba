"""Items of published sets: read from files of every layout and from the Hub, chosen by a content hash."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hub_server import Hub, serve
from hypothesis import given
from hypothesis import strategies as st

from dipscope.benchmarks import items
from dipscope.benchmarks.items import Source, choose, item_id
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Item

ROWS = [{"question": f"What is {i} plus {i}? “√”", "answer": str(2 * i)} for i in range(5)]
SOURCE = Source("lab/sums", None, "test.jsonl", None, licence="MIT")


def jsonl() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def table(name: str) -> bytes:
    plain = name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        buffer = io.BytesIO()
        pl.DataFrame(ROWS).write_parquet(buffer)
        return buffer.getvalue()
    if plain.endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
        data = text.getvalue().encode()
    else:
        data = jsonl() if plain.endswith(".jsonl") else json.dumps(ROWS, indent=1).encode()
    return gzip.compress(data) if name.endswith(".gz") else data


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.csv.gz"]
)
def test_every_layout_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(table(name))
    assert items.rows(SOURCE, tmp_path / name) == ROWS


def refused(*args: object) -> DipscopeError:
    with pytest.raises(DipscopeError) as caught:
        items.rows(*args)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_wrong_path_says_what_would_be_fetched(tmp_path: Path) -> None:
    error = refused(SOURCE, tmp_path / "none.jsonl")
    assert "none.jsonl" in str(error) and "lab/sums, test.jsonl" in str(error) and error.exit_code == 2


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(jsonl()[:-9])
    assert "cut.jsonl:5" in str(refused(SOURCE, path))


def test_a_field_that_is_not_there() -> None:
    with pytest.raises(DipscopeError, match=r"lack the field 'gold'; they have question, answer"):
        items.field(ROWS[0], "gold", SOURCE)


# The Hub


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in of the Hub, and the real client with an empty cache, online, patient without waiting."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serve() as running:
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


def test_pinned_on_the_hub_and_then_from_the_cache(server: Hub) -> None:
    commit = server.add("lab/sums", {"test.jsonl": jsonl()})
    server.add("lab/sums", {"test.jsonl": b'{"question": "changed"}\n'})  # main moved on
    pinned = replace(SOURCE, revision=commit, sha256=hashlib.sha256(jsonl()).hexdigest())
    assert items.rows(pinned) == ROWS
    asked = len(server.requests)
    assert items.rows(pinned) == ROWS and len(server.requests) == asked


def test_another_checksum_is_refused(server: Hub) -> None:
    server.add("lab/sums", {"test.jsonl": jsonl()})
    error = refused(replace(SOURCE, sha256="0" * 64))
    assert hashlib.sha256(jsonl()).hexdigest() in str(error) and "Nothing of it was used" in str(error)


def test_a_gated_set_says_how_to_get_it(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("lab/sums", {"test.jsonl": jsonl()})
    server.repositories["lab/sums"].gated = True
    gated = replace(SOURCE, gated=True)
    error = refused(gated)
    assert all(said in str(error) for said in ("terms", "HF_TOKEN", "lab/sums", "`path`"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert items.rows(gated) == ROWS


def test_offline_says_how_to_get_it(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(SOURCE)
    assert "HF_HUB_OFFLINE" in str(error) and "`path`" in str(error) and error.exit_code == 1


# Choosing


def made(n: int) -> list[Item]:
    return [Item(item_id("question", str(i)), f"question {i}", i) for i in range(n)]


def test_ids_keep_their_parts_apart() -> None:
    assert item_id("ab", "c") != item_id("a", "bc")
    assert item_id("ab", "c") == hashlib.sha256(b"ab\0c").hexdigest()[:16]


@given(st.permutations(made(30)), st.integers(0, 40))
def test_the_order_of_the_file_does_not_matter(shuffled: list[Item], n: int) -> None:
    assert choose(shuffled, n, "test") == choose(made(30), n, "test") == choose(made(30), 30, "test")[:n]


def test_splits_of_a_large_set() -> None:
    dev, test = (choose(made(800), 800, split) for split in ("dev", "test"))
    assert len(dev) + len(test) == 800 and not {i.id for i in dev} & {i.id for i in test}
    assert 150 < len(dev) < 250
    assert {i.id for i in choose(made(800), 9, "test")} <= {i.id for i in test}
    assert len(choose(made(800), 800, "test", whole=True)) == 800


def test_clusters_are_in_one_split() -> None:
    pairs = [replace(item, cluster=str(i // 4)) for i, item in enumerate(made(800))]
    dev, test = (choose(pairs, 800, split) for split in ("dev", "test"))
    assert dev and not {i.cluster for i in dev} & {i.cluster for i in test}


def test_small_sets_have_no_dev_split() -> None:
    assert len(choose(made(198), 500, "test")) == 198
    with pytest.raises(DipscopeError, match="no dev split: it has 198 items"):
        choose(made(198), 5, "dev")
    with pytest.raises(DipscopeError, match="the protocol measures all of it"):
        choose(made(800), 5, "dev", whole=True)


def test_repeated_items_count_once() -> None:
    assert len(choose(made(5) + made(3), 10, "test")) == 5
