"""Worker processes: what they may not do, and that they can be killed."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from dipscope.errors import DipscopeError
from dipscope.scoring.process import Process

WORKER = "sealed_worker"


@pytest.fixture
def process():
    made = Process(WORKER)
    yield made
    made.kill()


def ask(process: Process, *tasks: str, patience: float = 20.0) -> list[str]:
    return [line.decode().strip() for line in process.ask(" ; ".join(tasks).encode(), len(tasks), patience)]


@pytest.mark.parametrize(
    "task", ["write {folder}/x", "connect", "run", "system"], ids=["write", "connect", "run", "system"]
)
def test_a_sealed_worker_changes_nothing_outside(process, task, tmp_path):
    assert ask(process, task.format(folder=tmp_path)) == ["PermissionError"]
    assert list(tmp_path.iterdir()) == []


def test_it_reads_and_answers_and_knows_no_secrets(process, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("text")
    assert ask(process, "echo 1", f"read {tmp_path}/file", "echo 2") == ["1", "text", "2"]
    monkeypatch.setenv("SECRET_TOKEN", "x")
    other = Process(WORKER)
    named = ask(other, "environment")[0].split(",")
    other.kill()
    assert "PYTHONPATH" in named and not {"SECRET_TOKEN", "HOME", "PATH"} & set(named)


def test_memory_is_limited_and_the_worker_lives_on(process):
    assert ask(process, f"allocate {2 << 30}", "echo on") == ["MemoryError", "on"]


def test_the_replies_before_a_death_arrive(process):
    assert ask(process, "echo 1", "die", "echo 2") == ["1"]
    assert not process.spent


def test_a_worker_that_sleeps_is_killed(process):
    begun = time.monotonic()
    assert ask(process, "echo 1", "sleep 60", patience=0.5) == ["1"]
    assert time.monotonic() - begun < 10 and not psutil.pid_exists(process.pid)


def test_long_lines_both_ways(process):
    long = "x" * 3_000_000
    assert ask(process, f"echo {long}") == [long]


def test_a_worker_that_does_not_start_is_a_fault():
    with pytest.raises(DipscopeError, match="does not start") as caught:
        Process(WORKER, "broken")
    assert caught.value.fault


def test_a_worker_ends_with_its_parent():
    code = (
        "import sys, time; from dipscope.scoring.process import Process\n"
        f"p = Process({WORKER!r}); print(p.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive
