"""Datasets through the real Hub client: from a stand-in of the Hub's API, and from the cache."""

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hub_server import Hub, serve

from dipscope.data.reading import published
from dipscope.data.reading.sources import Source, open_table
from dipscope.errors import DipscopeError
from dipscope.interop import hub

N = 40


@pytest.fixture(autouse=True)
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client with an empty cache, online, patient without waiting; the cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return cache


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serve() as running:
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


def parquet(answers: list[Any], responses: list[str] | None = None) -> bytes:
    """A file in the published layout: message, response, advantage, answer, prompt."""
    n = len(answers)
    table = pl.DataFrame(
        {
            "message": [[{"content": f"Question {i}\nThink.", "role": "user"}] for i in range(n)],
            "response": responses or [f"<think>\nstep {i}\n</think>\n\n\\boxed{{{i}}}" for i in range(n)],
            "advantage": [1.0] * n,
            "answer": answers,
            "prompt": [f"<|im_start|>user\nQuestion {i}<|im_end|>" for i in range(n)],
        }
    )
    buffer = io.BytesIO()
    table.write_parquet(buffer, row_group_size=16)
    return buffer.getvalue()


MATH = parquet([str(i) for i in range(N)])


def refused(*args: Any, **named: Any) -> DipscopeError:
    with pytest.raises(DipscopeError) as caught:
        hub.resolve_dataset(*args, **named)
    assert "\n" not in str(caught.value)
    return caught.value


def pin(monkeypatch: pytest.MonkeyPatch, name: str, revision: str, content: bytes) -> None:
    """Let the registry pin what the stand-in holds, as it pins the real file."""
    from dataclasses import replace

    digest = hashlib.sha256(content).hexdigest()
    changed = tuple(
        replace(s, revision=revision, file=f"{name}.parquet", sha256=digest) if s.name == name else s
        for s in published.SETS
    )
    monkeypatch.setattr(published, "SETS", changed)


def test_a_published_set_loads_pinned(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"README.md": b"card", ".gitattributes": b"", "Math-CoT-20k.parquet": MATH}
    commit = server.add("jasonrqh/Math-CoT-20k", files)
    server.add("jasonrqh/Math-CoT-20k", {"Math-CoT-20k.parquet": parquet(["changed"])})  # main moved on
    pin(monkeypatch, "Math-CoT-20k", commit, MATH)
    table = open_table(Source.parse("math-cot-20k"))
    traces = list(table.stream())
    assert [t.gold for t in traces] == [str(i) for i in range(N)]
    assert traces[3].prompt == "Question 3\nThink." and traces[3].source == "Math-CoT-20k.parquet:3"
    assert table.facts["revision"] == commit and table.facts["checked"] is True
    assert table.facts["files"] == [
        {"name": "Math-CoT-20k.parquet", "sha256": hashlib.sha256(MATH).hexdigest(), "bytes": len(MATH)}
    ]
    assert any("12364" in note for note in table.facts["notes"])
    assert not any("README" in request for request in server.requests)
    asked = len(server.requests)
    assert [*open_table(Source.parse("Math-CoT-20k")).stream()] == traces
    assert len(server.requests) == asked, "a pinned file in the cache needs no network"


def test_countdown_answers_are_numbers_and_target(server: Hub) -> None:
    content = parquet([{"numbers": [3, 5, 7], "target": 22 + i} for i in range(4)])
    server.add("jasonrqh/Countdown-CoT-20k", {"data/train-00000-of-00001.parquet": content})
    table = open_table(Source(hub="Countdown-CoT-20k"))
    assert [t.gold for t in table.stream()] == [
        f'{{"numbers": [3, 5, 7], "target": {22 + i}}}' for i in range(4)
    ]
    assert any("Pin it" in note for note in table.facts["notes"])


def test_human_solutions_are_of_human_origin(server: Hub) -> None:
    server.add("jasonrqh/NuminaMath-20k", {"NuminaMath-20k.parquet": MATH})
    assert {t.origin for t in open_table(Source.parse("Numina-Math-20k")).stream()} == {"human"}


def test_shards_are_one_table_in_order(server: Hub) -> None:
    shards = {f"data/train-{i:05d}-of-00003.parquet": parquet([f"{i}"] * 2) for i in range(3)}
    commit = server.add("lab/pool", {**shards, "dataset_infos.json": b"{}"})
    paths, resolved = hub.resolve_dataset("lab/pool")
    assert resolved == commit
    assert [hub.inner_name(p) for p in paths] == sorted(shards)
    assert [t.gold for t in open_table(Source(hub="lab/pool")).stream()] == ["0", "0", "1", "1", "2", "2"]


def test_several_tables_are_told_apart_before_anything_is_fetched(server: Hub) -> None:
    files = {
        f"{split}/{part}-00000-of-00001.parquet": MATH for split in ("all", "data") for part in ("a", "b")
    }
    server.add("lab/many", files)
    error = refused("lab/many")
    assert "several tables" in str(error) and "data/b" in str(error) and "file = " in str(error)
    assert not any("resolve" in request for request in server.requests)
    paths, _ = hub.resolve_dataset("lab/many", None, "data/b-*")
    assert [hub.inner_name(p) for p in paths] == ["data/b-00000-of-00001.parquet"]


def test_another_checksum_is_refused_with_both_named(server: Hub) -> None:
    server.add("lab/one", {"one.parquet": MATH})
    error = refused("lab/one", None, "one.parquet", "0" * 64)
    assert hashlib.sha256(MATH).hexdigest() in str(error) and "0" * 64 in str(error)
    assert "Nothing of it was used" in str(error) and error.exit_code == 2
    with pytest.raises(DipscopeError, match="SHA-256"):
        open_table(Source(hub="lab/one", sha256="0" * 64))
    good = hashlib.sha256(MATH).hexdigest()
    assert len(hub.resolve_dataset("lab/one", None, None, good.upper())[0]) == 1


def test_a_pinned_set_with_other_content_is_refused(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = server.add("jasonrqh/Math-CoT-20k", {"Math-CoT-20k.parquet": MATH})
    pin(monkeypatch, "Math-CoT-20k", commit, MATH + b"more")
    with pytest.raises(DipscopeError, match="SHA-256"):
        open_table(Source(hub="Math-CoT-20k"))


@pytest.mark.parametrize("file", [None, "one.parquet"])
def test_what_is_not_there(server: Hub, file: str | None) -> None:
    server.add("lab/one", {"one.parquet": MATH})
    error = refused("lab/one", "v9", file)
    assert "no such revision" in str(error) and "lab/one@v9" in str(error) and error.exit_code == 2
    # The commit that the registry pins, in a repository that does not have it.
    error = refused("lab/one", "1435fb21d4fecc8ad4966a26f22a874cf2b527f1", file)
    assert "no such revision" in str(error)
    error = refused("lab/none", None, file)
    assert "no such dataset repository" in str(error) and error.exit_code == 2


def test_a_missing_file_is_named(server: Hub) -> None:
    server.add("lab/one", {"one.parquet": MATH})
    assert "no file 'two.parquet'" in str(refused("lab/one", None, "two.parquet"))
    assert "no file 'two-*'" in str(refused("lab/one", None, "two-*"))
    server.add("lab/script", {"script.py": b"print()", "README.md": b""})
    assert "a loading script, which is not run" in str(refused("lab/script"))
    server.add("lab/pickle", {"data.pkl": b""})
    assert "no table" in str(refused("lab/pickle"))
    assert "format is not read" in str(refused("lab/pickle", None, "data.pkl"))
    assert not any("pkl" in request for request in server.requests)


@pytest.mark.parametrize("file", [None, "one.parquet"])
def test_gated_and_private_with_and_without_a_token(
    server: Hub, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    from huggingface_hub import constants

    # A token stored by a login is none of ours: only the environment counts.
    stored = Path(str(constants.HF_HUB_CACHE)).parent / "token"
    stored.write_text("hf_stored")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(stored))
    server.add("lab/gated", {"one.parquet": MATH})
    server.repositories["lab/gated"].gated = True
    server.add("lab/private", {"one.parquet": MATH})
    server.repositories["lab/private"].private = True
    error = refused("lab/gated", None, file)
    assert "terms to be accepted" in str(error) and "HF_TOKEN" in str(error)
    assert "or it is private" in str(refused("lab/private", None, file))
    assert server.tokens == {None}
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert hub.resolve_dataset("lab/gated", None, file)
    assert hub.resolve_dataset("lab/private", None, file)
    assert "Bearer hf_test" in server.tokens


@pytest.mark.parametrize("file", [None, "one.parquet"])
def test_a_download_that_was_cut_short_is_refused(server: Hub, client: Path, file: str | None) -> None:
    server.add("lab/one", {"one.parquet": MATH})
    server.cut = len(MATH) // 2
    error = refused("lab/one", None, file)
    assert "could not be fetched" in str(error) and error.exit_code == 1
    assert not list(client.rglob("*.parquet"))
    server.cut = None
    assert hub.resolve_dataset("lab/one", None, file)[0][0].read_bytes() == MATH


def test_a_server_out_of_order_or_gone(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = server.add("lab/one", {"one.parquet": MATH})
    first = hub.resolve_dataset("lab/one")
    server.failing = 503
    for file in (None, "other.parquet"):
        error = refused("lab/absent", None, file)
        assert "cannot be reached" in str(error) and "503" in str(error) and error.exit_code == 1
    assert hub.resolve_dataset("lab/one") == first == ([*first[0]], commit)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    for file in (None, "other.parquet"):
        assert "cannot be reached" in str(refused("lab/absent", None, file))
    assert hub.resolve_dataset("lab/one") == first


def test_the_cache_serves_without_a_network(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = server.add(
        "lab/pool", {f"data/train-{i:05d}-of-00002.parquet": MATH for i in range(2)}, "main", "v1"
    )
    online = hub.resolve_dataset("lab/pool", "v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.requests)
    assert hub.resolve_dataset("lab/pool", "v1") == online
    assert hub.resolve_dataset("lab/pool", commit) == online
    assert hub.resolve_dataset("lab/pool", commit, "data/train-00001-of-00002.parquet")[0] == online[0][1:]
    error = refused("lab/pool", "v2")
    assert "HF_HUB_OFFLINE is set" in str(error) and error.exit_code == 1
    online[0][1].unlink()
    assert "only 1 of the 2 shards" in str(refused("lab/pool", "v1"))
    assert len(server.requests) == asked


def test_a_prepared_cache(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid out by hand as the client lays it out, links included."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    pin(monkeypatch, "Math-CoT-20k", commit, MATH)
    repo = client / "datasets--jasonrqh--Math-CoT-20k"
    blob = repo / "blobs" / hashlib.sha256(MATH).hexdigest()
    link = repo / "snapshots" / commit / "Math-CoT-20k.parquet"
    blob.parent.mkdir(parents=True)
    link.parent.mkdir(parents=True)
    blob.write_bytes(MATH)
    link.symlink_to(os.path.relpath(blob, link.parent))
    table = open_table(Source(hub="jasonrqh/Math-CoT-20k"))
    assert table.rows == N == len(list(table.stream()))
    blob.write_bytes(MATH[:-1] + b"?")
    with pytest.raises(DipscopeError, match="SHA-256"):
        open_table(Source(hub="jasonrqh/Math-CoT-20k"))


def test_no_path_leaves_the_repository(server: Hub, client: Path, tmp_path: Path) -> None:
    server.add("lab/evil", {"../../../escape.parquet": MATH})
    refused("lab/evil")
    assert "leaves" in str(refused("lab/evil", None, "../../../escape.parquet"))
    assert "leaves" in str(refused("lab/evil", None, "/etc/passwd"))
    assert not list(tmp_path.rglob("escape.parquet"))
    server.add("lab/one", {"one.parquet": MATH})
    (path,), _ = hub.resolve_dataset("lab/one")
    outside = tmp_path / "outside.parquet"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)
    assert "points out of" in str(refused("lab/one"))


def test_malformed_id(server: Hub) -> None:
    assert "no repository id" in str(refused("not/a/repo"))
    assert "no repository id" in str(refused("not/a/repo", None, "x.parquet"))
