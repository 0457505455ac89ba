"""Saving beside training: what is written is what was, one at a time, and every failure comes to light."""

import random
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import tinymodel
import torch
from safetensors.torch import load_file

from dipscope.errors import DipscopeError
from dipscope.train import checkpoints
from dipscope.train.layout import Layout
from dipscope.train.saver import Saver


@pytest.fixture
def model():
    return tinymodel.model()


@pytest.fixture
def layout(model, tmp_path):
    return Layout.of(model, tinymodel.directory(tmp_path / "source"), torch.bfloat16)


@pytest.fixture
def gate(monkeypatch):
    """Holds every write back until it is set."""
    event, real = threading.Event(), checkpoints.save

    def slow(*args):
        assert event.wait(20)
        return real(*args)

    monkeypatch.setattr(checkpoints, "save", slow)
    yield event
    event.set()


@contextmanager
def full_disk():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("given", [False, True])
def test_training_goes_on_while_the_weights_of_the_moment_are_written(model, layout, tmp_path, gate, given):
    wanted = model.model.norm.weight.detach().bfloat16()
    with Saver(layout) as saver:
        state = model.bfloat16().state_dict() if given else model.state_dict()
        state = {n: v.clone() for n, v in state.items()} if given else state
        saver.save(state, tmp_path / "a", {"step": 1}, given=given)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7)
        assert not (tmp_path / "a").exists()
        gate.set()
        saver.wait()
        assert checkpoints.verify(tmp_path / "a")
    assert torch.equal(load_file(tmp_path / "a" / "model.safetensors")["model.norm.weight"], wanted)


def test_a_second_save_waits_for_the_first(model, layout, tmp_path, gate):
    with Saver(layout) as saver:
        saver.save(model.state_dict(), tmp_path / "a", {})
        second = threading.Thread(target=saver.save, args=(model.state_dict(), tmp_path / "b", {}))
        second.start()
        second.join(0.2)
        assert second.is_alive() and not (tmp_path / "a").exists()
        gate.set()
        second.join(20)
        assert checkpoints.verify(tmp_path / "a")
    assert checkpoints.verify(tmp_path / "b") == checkpoints.verify(tmp_path / "a")


def test_it_writes_what_saving_at_once_writes(model, layout, tmp_path):
    with Saver(layout) as saver:
        for name in "abc":  # the copy's memory is used again
            saver.save(model.state_dict(), tmp_path / name, {"step": 1})
    state = {name: value.bfloat16() for name, value in model.state_dict().items()}
    checkpoints.save(state, layout, tmp_path / "at once", {"step": 1})
    for path in (tmp_path / "at once").iterdir():
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()


@pytest.mark.parametrize("when", ["wait", "save", "end"])
def test_a_full_disk_is_said_on_the_training_thread(model, layout, tmp_path, when):
    with pytest.raises(DipscopeError, match=r"a: cannot write \(File too large\)\. Free space") as caught:  # noqa: SIM117
        with Saver(layout) as saver:
            with full_disk():
                saver.save(model.state_dict(), tmp_path / "a", {})
                while not saver._under_way.done():
                    time.sleep(0.01)
            if when == "wait":
                saver.wait()
            if when == "save":
                saver.save(model.state_dict(), tmp_path / "b", {})
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_the_first_failure_is_the_one_that_is_raised(model, layout, tmp_path):
    with full_disk(), pytest.raises(ZeroDivisionError), Saver(layout) as saver:
        saver.save(model.state_dict(), tmp_path / "a", {})
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_failed_save_can_be_made_again(model, layout, tmp_path):
    with Saver(layout) as saver:
        with full_disk():
            saver.save(model.state_dict(), tmp_path / "a", {})
            with pytest.raises(DipscopeError):
                saver.wait()
        saver.save(model.state_dict(), tmp_path / "a", {})
    assert checkpoints.verify(tmp_path / "a")


CHILD = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import tinymodel
from dipscope.train.layout import Layout
from dipscope.train.saver import Saver
model, out = tinymodel.model(), Path(sys.argv[2])
with Saver(Layout.of(model, tinymodel.directory(out / "source"), torch.bfloat16)) as saver:
    for step in range(10_000):
        saver.save(model.state_dict(), out / f"step-{step % 5:06d}", {"step": step})
        print(step, flush=True)
"""


def test_a_kill_leaves_a_whole_checkpoint_or_none(tmp_path):
    draw = random.Random(time.time_ns())
    command = [sys.executable, "-c", CHILD, str(Path(tinymodel.__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        for _ in range(8):
            assert child.stdout.readline()
        time.sleep(draw.uniform(0, 0.3))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    folders = list(tmp_path.glob("step-*"))
    assert len(folders) >= 4 and all(map(checkpoints.verify, folders))
