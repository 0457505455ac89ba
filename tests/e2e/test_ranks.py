"""A study whose training is shared by two processes, started by dipscope itself and by torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

STUDY = """
[study]
name = "mini"

[models.tiny]
organism = "XS"

[datasets.cot]
source = "countdown"
variant = "cot"
rows = 48

[recipes.short]
lr = 1e-3
epochs = 8
batch_size = 16
precision = "fp32"
checkpoints = [2, 24]
resume_every = 2

[runs]
models = ["tiny"]
datasets = ["cot"]
recipes = ["short"]

[measure]
benchmarks = ["organism/countdown"]
items = 4
max_tokens = 16

[analysis]
bootstrap = 100
"""
DIPSCOPE = [sys.executable, "-m", "dipscope"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dipscope"]


def run(folder, workspace, *more, start=DIPSCOPE):
    command = [*start, "run", str(study(folder)), "--workspace", str(workspace), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def study(folder, text=STUDY):
    path = folder / "mini.toml"
    path.write_text(text)
    return path


def trained(workspace):
    (folder,) = (workspace / "runs").iterdir()
    return folder


def lines(workspace):
    return [json.loads(line) for line in (trained(workspace) / "train.jsonl").read_text().splitlines()]


def checkpoint(workspace):
    return load_file(trained(workspace) / "step-000024" / "model.safetensors")


def marker(workspace):
    return json.loads((trained(workspace) / "step-000024" / "dipscope.json").read_text())["weights"]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    code, out, err = run(folder, folder / "w", "--world", "2")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["errors"] == 0
    return folder / "w"


@pytest.mark.slow
def test_two_processes_give_the_numbers_and_cells_of_one(together, tmp_path):
    code, _, err = run(tmp_path, tmp_path / "w")
    assert code == 0, err
    cells = [sorted(p.name for p in (w / "cells").iterdir()) for w in (together, tmp_path / "w")]
    assert cells[0] == cells[1]
    for mine, theirs in zip(lines(together), lines(tmp_path / "w"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    one, other = checkpoint(together), checkpoint(tmp_path / "w")
    for name, value in one.items():
        gap = (value.float() - other[name].float()).norm() / value.float().norm()
        assert gap < 1e-3, f"{name}: {gap}"  # both are rounded to bfloat16


@pytest.mark.slow
def test_torchrun_gives_the_same_bits(together, tmp_path):
    code, out, err = run(tmp_path, tmp_path / "w", start=TORCHRUN)
    assert code == 0, err
    assert len(out.splitlines()) == 1, "only the first process speaks"
    assert marker(tmp_path / "w") == marker(together)


@pytest.mark.slow
def test_torchrun_on_a_bad_study_ends_with_one_line_of_dipscope(tmp_path):
    path = study(tmp_path, STUDY.replace('"XS"', '"XXL"'))
    command = [*TORCHRUN, "run", str(path), "--workspace", str(tmp_path / "w")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("dipscope:")] == [
        "dipscope: models.tiny: there is no organism of size 'XXL'. Sizes are XS, S, M."
    ]


def while_training(process, workspace):
    """Wait until a few steps are done."""
    until = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < until:
        if any(p.read_bytes().count(b"\n") >= 5 for p in workspace.glob("runs/*/train.jsonl")):
            return
        time.sleep(0.01)
    raise AssertionError("it never came to train")


@pytest.mark.slow
def test_killing_dipscope_ends_the_ranks_and_the_next_run_goes_on(together, tmp_path):
    command = [*DIPSCOPE, "run", str(study(tmp_path)), "--workspace", str(tmp_path / "w"), "--world", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while_training(process, tmp_path / "w")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        assert psutil.wait_procs(children, timeout=20)[1] == []
    done = len(lines(tmp_path / "w"))
    assert 5 <= done < 24, "it was killed in the middle"
    code, _, err = run(tmp_path, tmp_path / "w", "--world", "2")
    assert code == 0, err
    assert [line["step"] for line in lines(tmp_path / "w")] == list(range(1, 25))
    assert marker(tmp_path / "w") == marker(together)


@pytest.mark.slow
@pytest.mark.parametrize("start", [[*DIPSCOPE, "--world"], TORCHRUN], ids=["dipscope", "torchrun"])
def test_a_rank_that_is_killed_ends_the_run_with_one_line(tmp_path, start):
    more = ["--world", "2"] if "--world" in start else []
    command = [*[s for s in start if s != "--world"], "run", str(study(tmp_path))]
    workspace = tmp_path / "w"
    with subprocess.Popen(
        [*command, "--workspace", str(workspace), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while_training(process, workspace)
        os.kill(last_rank(process.pid, workspace), signal.SIGKILL)
        err = process.communicate(timeout=120)[1].decode()
    said = [line for line in err.splitlines() if line.startswith("dipscope:")]
    assert process.returncode == 1
    assert len(said) == 1 and "process 2 of 2 was killed" in said[0], err


def last_rank(pid, workspace):
    """The process of rank 1: of those that write into the ranks' log, the one that was started last."""
    log = str(Path(workspace / "ranks.log").resolve())
    writing = []
    for process in psutil.Process(pid).children(recursive=True):
        descriptor = Path(f"/proc/{process.pid}/fd/1")
        if descriptor.exists() and str(descriptor.readlink()) == log:
            writing.append(process)
    assert len(writing) == 2
    if (rank := [p for p in writing if p.parent().environ().get("RANK") == "1"]) != []:
        return rank[0].pid
    return max(process.pid for process in writing)


def test_fewer_rows_a_step_than_processes_are_refused_before_anything_is_done(tmp_path):
    path = study(tmp_path)
    command = [*DIPSCOPE, "run", str(path), "--workspace", str(tmp_path / "w"), "--world", "17"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "batch_size 16 is smaller than the 17 processes" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "w" / "cells").iterdir())
