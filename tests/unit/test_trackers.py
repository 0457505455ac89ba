"""Copies of a run's log in trackers: each step once, whatever was interrupted; no harm from a broken one."""

import json
import sys
import time
from types import ModuleType
from typing import ClassVar

import pytest

from dipscope.errors import DipscopeError
from dipscope.train import trackers
from dipscope.train.step import StepReport
from dipscope.train.steplog import StepLog


def report(step, total=9):
    return StepReport(
        step, total, 2.0 / step, 1e-3, 1.0, step % 2 == 0, 70, 50, 0.1, metrics={"loss_answer": 0.1 / step}
    )


def tracked(tmp_path, run="tiny/cot/default/seed0", key="0123456789abcdef"):
    return trackers.Tracked("study", run, key, {"recipe": {"lr": 1e-3}, "seed": 0}, tmp_path / "trackers")


def stretch(tmp_path, names, steps, known, notes=None, until=None):
    """A process that trains `steps`, of which `known` lines stand already; it may be killed after `until`."""
    log = StepLog(tmp_path / "train.jsonl", known)
    told = [] if notes is None else notes
    with trackers.following(names, tmp_path / "train.jsonl", tracked(tmp_path), told.append) as follow:
        for step in steps:
            log.add(report(step))
            follow()
            if step == until:
                raise KeyboardInterrupt


class Recorder:
    """A tracker that remembers; what it is told lives as long as the class."""

    steps: ClassVar[list] = []
    values: ClassVar[dict] = {}
    opened: ClassVar[list] = []
    closed: ClassVar[list] = []
    last = None

    def __init__(self, tracked, fresh):
        self.opened.append((tracked.name, fresh))

    def log(self, step, values):
        self.steps.append(step)
        self.values[step] = values

    def close(self, failed):
        self.closed.append(failed)


@pytest.fixture
def recorder(monkeypatch):
    fresh = type("Fresh", (Recorder,), {"steps": [], "values": {}, "opened": [], "closed": []})
    monkeypatch.setitem(trackers._OPEN, "tensorboard", fresh)
    return fresh


def test_a_tracker_gets_each_step_once_however_the_run_was_broken(tmp_path, recorder):
    with pytest.raises(KeyboardInterrupt):
        stretch(tmp_path, ["tensorboard"], range(1, 9), 0, until=7)
    stretch(tmp_path, ["tensorboard"], range(6, 10), 5)  # from the resume point at 5: 6 and 7 are done again
    assert recorder.steps == list(range(1, 10))
    assert recorder.opened == [
        ("tiny/cot/default/seed0.01234567", True),
        ("tiny/cot/default/seed0.01234567", False),
    ]
    assert recorder.closed == [True, False]
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert lines[-1]["clipped_share"] == pytest.approx(4 / 9, rel=1e-5)
    assert recorder.values[4]["train/loss_answer"] == 0.025 and recorder.values[4]["train/clipped"] == 1.0
    assert "train/step" not in recorder.values[4]


def test_a_tracker_that_is_asked_for_later_gets_what_was_before(tmp_path, recorder):
    stretch(tmp_path, [], range(1, 5), 0)
    stretch(tmp_path, ["tensorboard"], range(5, 8), 4)
    assert recorder.steps == list(range(1, 8))


def test_a_tracker_that_lost_its_newest_steps_gets_them_again(tmp_path, recorder):
    stretch(tmp_path, ["tensorboard"], range(1, 8), 0)
    recorder.last = 5
    stretch(tmp_path, ["tensorboard"], range(8, 10), 7)
    assert recorder.steps == [*range(1, 8), *range(6, 10)]


def test_a_tracker_that_fails_is_given_up_with_one_note(tmp_path, recorder, monkeypatch):
    class Broken(Recorder):
        def log(self, step, values):
            if step == 3:
                raise RuntimeError("the server\nis gone")

    monkeypatch.setitem(trackers._OPEN, "wandb", Broken)
    notes = []
    stretch(tmp_path, ["wandb", "tensorboard"], range(1, 8), 0, notes)
    assert notes == ["wandb was given up (the server); training went on, train.jsonl has every step"]
    assert recorder.steps == list(range(1, 8))


def test_a_package_that_is_not_there_is_one_note_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    notes = []
    stretch(tmp_path, ["wandb"], range(1, 4), 0, notes)
    assert len(notes) == 1 and "wandb" in notes[0]
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_is_asked_for_and_missing_is_refused_before_a_run(monkeypatch):
    trackers.require([])
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DipscopeError, match=r"trackio is not installed.*dipscope\[track\]"):
        trackers.require(["trackio"])


def test_wandb_is_told_to_go_on_with_the_same_run(tmp_path, monkeypatch):
    calls, logged, finished = [], [], []

    class Run:
        offline, step = False, 0

        def log(self, values, step):
            logged.append((step, values["train/loss"]))

        def finish(self, exit_code):
            finished.append(exit_code)

    module = ModuleType("wandb")
    module.Settings = dict
    module.init = lambda **options: calls.append(options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(KeyboardInterrupt):
        stretch(tmp_path, ["wandb"], range(1, 9), 0, until=4)
    stretch(tmp_path, ["wandb"], range(4, 6), 3)
    assert [c["id"] for c in calls] == ["0123456789abcdef"] * 2
    assert all(c["resume"] == "allow" and c["project"] == "study" for c in calls)
    assert calls[0]["config"] == {"recipe": {"lr": 1e-3}, "seed": 0}
    assert logged == [(step, 2.0 / step) for step in range(1, 6)]
    assert finished == [1, 0]


def test_wandb_keeps_one_whole_copy_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    notes, logged = [], []
    log = trackers._Wandb.log
    monkeypatch.setattr(
        trackers._Wandb, "log", lambda self, step, _: logged.append(step) or log(self, step, _)
    )
    with pytest.raises(KeyboardInterrupt):
        stretch(tmp_path, ["wandb"], range(1, 9), 0, notes, until=4)
    time.sleep(1.1)  # the names of its folders have seconds
    stretch(tmp_path, ["wandb"], range(4, 6), 3, notes)
    assert not notes and wandb.run is None
    assert logged == [1, 2, 3, 4, *range(1, 6)]
    (kept,) = (tmp_path / "trackers/wandb").glob("offline-run-*/run-0123456789abcdef.wandb")
    until = time.monotonic() + 20
    while kept.stat().st_size < 500 and time.monotonic() < until:  # it writes in the background
        time.sleep(0.1)
    assert kept.stat().st_size > 500


def test_tensorboard_has_every_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        stretch(tmp_path, ["tensorboard"], range(1, 9), 0, until=7)
    stretch(tmp_path, ["tensorboard"], range(6, 10), 5)
    events = EventAccumulator(str(tmp_path / "trackers/tensorboard/tiny/cot/default/seed0.01234567"))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [e.step for e in losses] == list(range(1, 10))
    assert [e.value for e in losses] == pytest.approx([2.0 / step for step in range(1, 10)])
    assert len(events.Tensors("config/text_summary")) == 1


def test_trackio_has_every_step_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    with pytest.raises(KeyboardInterrupt):
        stretch(tmp_path, ["trackio"], range(1, 9), 0, until=7)
    stretch(tmp_path, ["trackio"], range(6, 10), 5)
    rows = SQLiteStorage.get_logs("study", "tiny/cot/default/seed0.01234567")
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["train/loss"] for row in rows] == pytest.approx([2.0 / step for step in range(1, 10)])
    assert len(SQLiteStorage.get_runs("study")) == 1
    assert capsys.readouterr().out == ""
