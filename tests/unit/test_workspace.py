import errno
import multiprocessing as mp
import os

import pytest

from dipscope.errors import DipscopeError
from dipscope.workspace import Workspace, hash_json, write_atomic


def test_a_failed_write_leaves_what_was_there_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DipscopeError, match="No space left") as caught:
        write_atomic(path, "new")
    assert caught.value.exit_code == 1
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_unwritable_place_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DipscopeError, match="cannot write"):
        Workspace(tmp_path / "file" / "below")


def test_a_cell_is_complete_once_marked_and_only_then(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.outputs("train-1") is None
    workspace.complete("train-1", {"a": 1})
    assert Workspace(tmp_path).outputs("train-1") == {"a": 1}


def _flipped(data):
    at = data.index(b'"a": 1') + 5
    return data[:at] + b"2" + data[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:10],
        lambda data: b"\xff\xfe\x00",
        lambda data: b"[]",
        lambda data: b'{"format": 1}',
        lambda data: b'{"format": 1, "outputs": []}',
        _flipped,
    ],
    ids=["torn", "binary", "a list", "no outputs", "outputs of another kind", "another digit"],
)
def test_a_damaged_marker_counts_as_none(tmp_path, spoil):
    workspace = Workspace(tmp_path)
    workspace.complete("train-1", {"a": 1, 10: ("x", None), 9: 0.1})
    assert workspace.outputs("train-1") == {"a": 1, "10": ["x", None], "9": 0.1}
    marker = workspace.marker("train-1")
    marker.write_bytes(spoil(marker.read_bytes()))
    assert workspace.outputs("train-1") is None


def test_what_killed_processes_had_half_written_is_removed(tmp_path):
    workspace = Workspace(tmp_path)
    (tmp_path / "cells" / ".a.json.123.tmp").write_text("{")
    (tmp_path / "runs" / "k" / ".step-000002.123.tmp").mkdir(parents=True)
    (tmp_path / "runs" / "k" / ".step-000002.123.tmp" / "config.json").write_text("{}")
    for kept in ("notes.tmp", ".mine.tmp"):
        (tmp_path / "data" / kept).write_text("")
    workspace.take()
    assert sorted(p.name for p in tmp_path.rglob("*.tmp")) == [".mine.tmp", "notes.tmp"]


def test_keys_do_not_depend_on_the_order_of_settings():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})


def _take(root, gate, seen):
    workspace = Workspace(root)
    try:
        workspace.take(patience=0.1)
        seen.put("taken")
    except DipscopeError as error:
        seen.put(str(error))
    gate.wait()


def test_two_runs_do_not_work_in_one_workspace(tmp_path):
    context = mp.get_context("spawn")
    gate, seen = context.Event(), context.Queue()
    first = context.Process(target=_take, args=(tmp_path, gate, seen))
    first.start()
    assert seen.get(timeout=60) == "taken"
    assert Workspace(tmp_path).taken()
    second = context.Process(target=_take, args=(tmp_path, gate, seen))
    second.start()
    assert "another dipscope run" in seen.get(timeout=60)
    gate.set()
    first.join()
    second.join()
    assert not Workspace(tmp_path).taken()
